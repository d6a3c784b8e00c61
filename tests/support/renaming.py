"""transformers' tensors under the names that timm and the authors' repository have for them.

Written from those two networks' own module names and by other means than the package's tables, which it is to test.
"""

import re

import torch
from torch import Tensor, nn

_ORIGINAL = [
    (r"layer_norm_(\d)", r"norm\1"),
    (r"attention\.query", "attn.q"),
    (r"attention\.kv", "attn.kv"),
    (r"attention\.spatial_reduction", "attn.sr"),
    (r"attention\.layer_norm", "attn.norm"),
    (r"attention\.proj", "attn.proj"),
    (r"mlp\.dense(\d)", r"mlp.fc\1"),
    (r"^classifier", "head"),
    (r"patch_embedding\.layer_norm", "patch_embedding.norm"),
]


def use_source_epsilons(network: nn.Module) -> None:
    """Gives transformers' network the other two's epsilons: 1e-5 in the norms of embeddings and of reduced keys."""
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm) and ("patch_embedding" in name or "attention" in name):
            module.eps = 1e-5


def as_original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in `pvt_v2_b*.pth` of the authors: flat, stages counted from 1, keys and values in one layer."""
    renamed = {}
    for name, value in tensors.items():
        if ".attention.value." in name:
            continue
        if ".attention.key." in name:
            value = torch.cat([value, tensors[name.replace("key", "value")]])
            name = name.replace("key", "kv")
        name = name.removeprefix("pvt_v2.")
        for pattern, replacement in _ORIGINAL:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"^encoder\.layers\.(\d+)\.patch_embedding", lambda m: f"patch_embed{int(m[1]) + 1}", name)
        name = re.sub(r"^encoder\.layers\.(\d+)\.blocks", lambda m: f"block{int(m[1]) + 1}", name)
        name = re.sub(r"^encoder\.layers\.(\d+)\.layer_norm", lambda m: f"norm{int(m[1]) + 1}", name)
        renamed[name] = value
    return renamed


def as_timm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in timm's `pvt_v2_b*`: stages with a downsampling of their own, but for the first."""
    renamed = {}
    for name, value in as_original(tensors).items():
        name = re.sub(r"^patch_embed1", "patch_embed", name)
        name = re.sub(r"^patch_embed(\d)", lambda m: f"stages.{int(m[1]) - 1}.downsample", name)
        name = re.sub(r"^block(\d)", lambda m: f"stages.{int(m[1]) - 1}.blocks", name)
        name = re.sub(r"^norm(\d)", lambda m: f"stages.{int(m[1]) - 1}.norm", name)
        renamed[name.replace("dwconv.dwconv", "dwconv")] = value
    return renamed
