"""PVTv2 under another network's head: the live module as transformers' backbone, and maps that a job has stored."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BackboneOutput

from model import PVTv2


class Backbone(nn.Module):
    """Stands where transformers' own `PvtV2Backbone` stands, and gives the same maps.

    Attributes:
        channels: of each map that it gives; heads size their first layers by them.
    """

    def __init__(self, model: PVTv2, stages: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        super().__init__()
        self.model = model
        self.stages = stages
        self.channels = [model.config.embed_dims[stage - 1] for stage in stages]

    def forward(self, pixel_values: Tensor, **_: object) -> BackboneOutput:
        """The maps BCHW of normalised images BCHW; what else heads pass on asks for outputs that there are none of."""
        maps = self.model.forward_features(pixel_values)
        return BackboneOutput(feature_maps=tuple(maps[stage - 1] for stage in self.stages))

    forward_with_filtered_kwargs = forward  # some of transformers' heads call it so


def stored_map(column: pa.ChunkedArray, row: int) -> Tensor:
    """One map CHW, of the dtype in which it was stored: `column` is `stage1` to `stage4` of an output."""
    value = column[row]
    data = value["data"].values.to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(data)).reshape(value["shape"].as_py())
