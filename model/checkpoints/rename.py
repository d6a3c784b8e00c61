"""The names of a network's parameters in the checkpoints of each source of weights: one table per source.

A table maps a module of `PVTv2` to the modules of the source. The parameters of those modules, joined along the first
axis in the order of the table, are the parameters of the module of `PVTv2`. `{base}` is a prefix that some checkpoints
put before every name of the backbone; `{stage}` counts from 0 and `{number}` from 1. An entry for one stage, with the
stage as a figure, comes before the entry with `{stage}`.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
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
# timm and the original join keys and values into one layer, keys first, as `PVTv2` does.
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
    """The names that one source of weights gives to the network's tensors.

    Attributes:
        source_format: Name of the source.
        table: Names of the source's modules.
        embed_eps: Epsilon of the source's norms after a patch embedding and after the keys' reduction; the epsilon of
            other norms is 1e-6 in every source. A `config.json` of transformers has an epsilon of its own.
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
    """Returns the naming of a checkpoint's tensors and the prefix of the backbone's names; None for no PVTv2.

    The prefix may have any parts, such as `module.`, `_orig_mod.` and `model.`. transformers' head lies beside the
    backbone, so the head has only the first parts of the prefix, which the table of the returned naming then holds.
    """
    names = set(names)
    for naming in NAMINGS:
        (first,) = upstream_names("stages.0.embed.conv.weight", naming.table, "")
        for name in sorted(names):
            base = name.removesuffix(first)
            if base != name and (not base or base.endswith(".")):
                return _with_head_of(naming, base, names), base
    return None


def is_classifiers(naming: Naming, base: str) -> bool:
    """Returns whether a prefix of a backbone's names says that the backbone was saved as a part of a classifier.

    In transformers, only the backbone of a classifier has the part `pvt_v2` in its prefix. For other sources, the
    answer is True, since their prefixes say nothing.
    """
    return naming.source_format != "transformers" or TRANSFORMERS_BASE.rstrip(".") in base.split(".")


def _with_head_of(naming: Naming, base: str, names: Collection[str]) -> Naming:
    """Returns the naming with the prefix that the head has in a checkpoint of transformers."""
    if naming.source_format != "transformers":
        return naming
    (head,) = TRANSFORMERS["head"]
    parts = base.split(".")[:-1]
    prefixes = ["".join(f"{part}." for part in parts[:length]) for length in range(len(parts), -1, -1)]
    usual = base.rpartition(TRANSFORMERS_BASE)[0] if TRANSFORMERS_BASE in base else ""
    prefix = next((prefix for prefix in prefixes if f"{prefix}{head}.weight" in names), usual)
    return replace(naming, table={**naming.table, "head": (f"{prefix}{head}",)})


def upstream_names(name: str, table: RenameTable, base: str) -> tuple[str, ...]:
    """Returns the checkpoint's names for the parts of one parameter of `PVTv2`, in the order in which they are joined.

    Args:
        name: Name in `PVTv2.state_dict`, such as `stages.2.blocks.5.attention.kv.weight`.
        table: Table of the checkpoint's source.
        base: Text for `{base}` in the table.
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
