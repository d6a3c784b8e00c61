"""PVTv2's feature maps for the head of another network: from the module itself, or from maps that a job has stored."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BackboneOutput

from model import PVTv2


class Backbone(nn.Module):
    """A backbone that takes the place of transformers' `PvtV2Backbone`, and returns the same maps.

    Attributes:
        channels: Number of channels of each returned map; heads size their first layers by these numbers.
    """

    def __init__(self, model: PVTv2, stages: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        super().__init__()
        self.model = model
        self.stages = stages
        self.channels = [model.config.embed_dims[stage - 1] for stage in stages]

    def forward(self, pixel_values: Tensor, **_: object) -> BackboneOutput:
        """Returns the maps BCHW of normalised images BCHW; heads pass other arguments too, which are ignored here."""
        maps = self.model.forward_features(pixel_values)
        return BackboneOutput(feature_maps=tuple(maps[stage - 1] for stage in self.stages))

    forward_with_filtered_kwargs = forward  # some of transformers' heads call this name


def stored_map(column: pa.ChunkedArray, row: int) -> Tensor:
    """Returns one map CHW in its stored dtype; `column` is one of the columns `stage1` to `stage4` of an output."""
    value = column[row]
    data = value["data"].values.to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(data)).reshape(value["shape"].as_py())
