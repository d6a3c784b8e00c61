"""Which tensors of a checkpoint make which parameter of the network: one table per source of weights.

A table goes from a module of ours to the modules of theirs whose parameters, joined along the first axis in this order,
are its own. `{base}` is what some checkpoints put before every name of the backbone.
"""

import re

RenameTable = dict[str, tuple[str, ...]]

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


def upstream_names(name: str, table: RenameTable, base: str) -> tuple[str, ...]:
    """The checkpoint's names for the parts of one of our parameters, in the order in which they are joined.

    Args:
        name: as in `PVTv2.state_dict`, such as `stages.2.blocks.5.attention.kv.weight`.
        table: of the checkpoint's source.
        base: fills the table's `{base}`.
    """
    module, _, leaf = name.rpartition(".")
    stage, block = (*re.findall(r"\.(\d+)(?=\.|$)", module), "", "")[:2]
    module = re.sub(r"^stages\.\d+", "stages.{stage}", module)
    module = re.sub(r"\.blocks\.\d+", ".blocks.{block}", module)
    return tuple(f"{upstream}.{leaf}".format(base=base, stage=stage, block=block) for upstream in table[module])
