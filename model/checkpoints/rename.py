"""Which tensors of a checkpoint make which parameter of the network: one table per source of weights.

A table goes from a module of ours to the modules of theirs whose parameters, joined along the first axis in this order,
are its own. `{base}` is what some checkpoints put before every name of the backbone, `{number}` the stage counted
from 1. A module that has a line of its own, with its stage in figures, is not looked up under `{stage}`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

RenameTable = dict[str, tuple[str, ...]]
SourceFormat = Literal["transformers", "timm", "original"]

TRANSFORMERS_BASE = "pvt_v2."
TRANSFORMERS: RenameTable = {
    "stages.{stage}.embed.conv": ("{base}encoder.layers.{stage}.patch_embedding.proj",),
    "stages.{stage}.embed.norm": ("{base}encoder.layers.{stage}.patch_embedding.layer_norm",),
    "stages.{stage}.blocks.{block}.norm1": ("{base}encoder.layers.{stage}.blocks.{block}.layer_norm_1",),
    "stages.{stage}.blocks.{block}.attention.q": ("{base}encoder.layers.{stage}.blocks.{block}.attention.query",),
    "stages.{stage}.blocks.{block}.attention.kv": (
        "{base}encoder.layers.{stage}.blocks.{block}.attention.key",
        "{base}encoder.layers.{stage}.blocks.{block}.attention.value",
    ),
    "stages.{stage}.blocks.{block}.attention.reduce": (
        "{base}encoder.layers.{stage}.blocks.{block}.attention.spatial_reduction",
    ),
    "stages.{stage}.blocks.{block}.attention.reduce_norm": (
        "{base}encoder.layers.{stage}.blocks.{block}.attention.layer_norm",
    ),
    "stages.{stage}.blocks.{block}.attention.proj": ("{base}encoder.layers.{stage}.blocks.{block}.attention.proj",),
    "stages.{stage}.blocks.{block}.norm2": ("{base}encoder.layers.{stage}.blocks.{block}.layer_norm_2",),
    "stages.{stage}.blocks.{block}.mlp.fc1": ("{base}encoder.layers.{stage}.blocks.{block}.mlp.dense1",),
    "stages.{stage}.blocks.{block}.mlp.dwconv": ("{base}encoder.layers.{stage}.blocks.{block}.mlp.dwconv.dwconv",),
    "stages.{stage}.blocks.{block}.mlp.fc2": ("{base}encoder.layers.{stage}.blocks.{block}.mlp.dense2",),
    "stages.{stage}.norm": ("{base}encoder.layers.{stage}.layer_norm",),
    "head": ("classifier",),
}
# timm and the original join keys and values into one layer, keys first, as we do.
_TIMM: RenameTable = {
    "stages.0.embed.conv": ("{base}patch_embed.proj",),
    "stages.0.embed.norm": ("{base}patch_embed.norm",),
    "stages.{stage}.embed.conv": ("{base}stages.{stage}.downsample.proj",),
    "stages.{stage}.embed.norm": ("{base}stages.{stage}.downsample.norm",),
    "stages.{stage}.blocks.{block}.norm1": ("{base}stages.{stage}.blocks.{block}.norm1",),
    "stages.{stage}.blocks.{block}.attention.q": ("{base}stages.{stage}.blocks.{block}.attn.q",),
    "stages.{stage}.blocks.{block}.attention.kv": ("{base}stages.{stage}.blocks.{block}.attn.kv",),
    "stages.{stage}.blocks.{block}.attention.reduce": ("{base}stages.{stage}.blocks.{block}.attn.sr",),
    "stages.{stage}.blocks.{block}.attention.reduce_norm": ("{base}stages.{stage}.blocks.{block}.attn.norm",),
    "stages.{stage}.blocks.{block}.attention.proj": ("{base}stages.{stage}.blocks.{block}.attn.proj",),
    "stages.{stage}.blocks.{block}.norm2": ("{base}stages.{stage}.blocks.{block}.norm2",),
    "stages.{stage}.blocks.{block}.mlp.fc1": ("{base}stages.{stage}.blocks.{block}.mlp.fc1",),
    "stages.{stage}.blocks.{block}.mlp.dwconv": ("{base}stages.{stage}.blocks.{block}.mlp.dwconv",),
    "stages.{stage}.blocks.{block}.mlp.fc2": ("{base}stages.{stage}.blocks.{block}.mlp.fc2",),
    "stages.{stage}.norm": ("{base}stages.{stage}.norm",),
    "head": ("{base}head",),
}
_ORIGINAL: RenameTable = {
    "stages.{stage}.embed.conv": ("{base}patch_embed{number}.proj",),
    "stages.{stage}.embed.norm": ("{base}patch_embed{number}.norm",),
    "stages.{stage}.blocks.{block}.norm1": ("{base}block{number}.{block}.norm1",),
    "stages.{stage}.blocks.{block}.attention.q": ("{base}block{number}.{block}.attn.q",),
    "stages.{stage}.blocks.{block}.attention.kv": ("{base}block{number}.{block}.attn.kv",),
    "stages.{stage}.blocks.{block}.attention.reduce": ("{base}block{number}.{block}.attn.sr",),
    "stages.{stage}.blocks.{block}.attention.reduce_norm": ("{base}block{number}.{block}.attn.norm",),
    "stages.{stage}.blocks.{block}.attention.proj": ("{base}block{number}.{block}.attn.proj",),
    "stages.{stage}.blocks.{block}.norm2": ("{base}block{number}.{block}.norm2",),
    "stages.{stage}.blocks.{block}.mlp.fc1": ("{base}block{number}.{block}.mlp.fc1",),
    "stages.{stage}.blocks.{block}.mlp.dwconv": ("{base}block{number}.{block}.mlp.dwconv.dwconv",),
    "stages.{stage}.blocks.{block}.mlp.fc2": ("{base}block{number}.{block}.mlp.fc2",),
    "stages.{stage}.norm": ("{base}norm{number}",),
    "head": ("{base}head",),
}


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How one source of weights names the network's tensors.

    Attributes:
        embed_eps: epsilon of the source's norms after a patch embedding and after the keys' reduction; the others' is
            1e-6 everywhere. A configuration of transformers says its own.
    """

    source_format: SourceFormat
    table: RenameTable
    embed_eps: float


NAMINGS = (
    Naming(source_format="transformers", table=TRANSFORMERS, embed_eps=1e-6),
    Naming(source_format="timm", table=_TIMM, embed_eps=1e-5),
    Naming(source_format="original", table=_ORIGINAL, embed_eps=1e-5),
)


def find_naming(names: Iterable[str]) -> tuple[Naming, str] | None:
    """Whose names these are, and what stands before those of the backbone; None if they are no PVTv2's."""
    names = list(names)
    for naming in NAMINGS:
        (first,) = upstream_names("stages.0.embed.conv.weight", naming.table, "")
        for name in names:
            base = name.removesuffix(first)
            if base != name and (not base or base.endswith(".")):
                return naming, base
    return None


def upstream_names(name: str, table: RenameTable, base: str) -> tuple[str, ...]:
    """The checkpoint's names for the parts of one of our parameters, in the order in which they are joined.

    Args:
        name: as in `PVTv2.state_dict`, such as `stages.2.blocks.5.attention.kv.weight`.
        table: of the checkpoint's source.
        base: fills the table's `{base}`.
    """
    module, _, leaf = name.rpartition(".")
    stage, block = (*re.findall(r"\.(\d+)(?=\.|$)", module), "", "")[:2]
    if module not in table:
        module = re.sub(r"^stages\.\d+", "stages.{stage}", module)
        module = re.sub(r"\.blocks\.\d+", ".blocks.{block}", module)
    number = int(stage) + 1 if stage else ""
    return tuple(
        f"{upstream}.{leaf}".format(base=base, stage=stage, block=block, number=number) for upstream in table[module]
    )
