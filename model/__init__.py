"""PVTv2 for inference: the network, its checkpoints, and packs of images of any sizes.

`__all__` lists the public names; docs/use/model.md shows how to use them. The package needs torch and safetensors, and
does not depend on the pipeline. A public name whose module loads torch is imported when the name is first used, so that
`import model.network.cost` and `import model.network.labels` load no torch.
"""

import importlib
from typing import TYPE_CHECKING

from model.errors import CheckpointError, LabelsError
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, RGB, VARIANTS, PVTv2Config, stage_sides, variant_of
from model.network.cost import count_macs, count_parameters
from model.network.labels import imagenet_labels, read_labels

if TYPE_CHECKING:  # for type checkers and editors; `_MODULES` lists the same names for `__getattr__`
    from model.checkpoints.load import LoadedModel, load_checkpoint, save_checkpoint
    from model.checkpoints.random_weights import random_weights
    from model.cpu.compiled import is_compiled
    from model.network.normalise import normalised
    from model.network.pvt_v2 import PVTv2
    from model.packed import Output, PackedOutput, PackedPVTv2, run_packed

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RGB",
    "VARIANTS",
    "CheckpointError",
    "LabelsError",
    "LoadedModel",
    "Output",
    "PVTv2",
    "PVTv2Config",
    "PackedOutput",
    "PackedPVTv2",
    "count_macs",
    "count_parameters",
    "imagenet_labels",
    "is_compiled",
    "load_checkpoint",
    "normalised",
    "random_weights",
    "read_labels",
    "run_packed",
    "save_checkpoint",
    "stage_sides",
    "variant_of",
]

# The module of each name that loads torch.
_MODULES = {
    "LoadedModel": "model.checkpoints.load",
    "Output": "model.packed",
    "PVTv2": "model.network.pvt_v2",
    "PackedOutput": "model.packed",
    "PackedPVTv2": "model.packed",
    "is_compiled": "model.cpu.compiled",
    "load_checkpoint": "model.checkpoints.load",
    "normalised": "model.network.normalise",
    "random_weights": "model.checkpoints.random_weights",
    "run_packed": "model.packed",
    "save_checkpoint": "model.checkpoints.load",
}


def __dir__() -> list[str]:
    """Returns all public names, including names that were not imported yet."""
    return __all__


if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> object:
        """Imports the module of a public name, and returns the object of that name (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
        return value
