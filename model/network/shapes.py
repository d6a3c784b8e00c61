"""The names and shapes of a network's parameters, computed by formula, so that checking a checkpoint needs no torch."""

from model.network.config import KERNELS, NUM_STAGES, PVTv2Config

IMAGE_CHANNELS = 3
Shape = tuple[int, ...]


def parameter_shapes(config: PVTv2Config) -> dict[str, Shape]:
    """Returns the shape of every parameter of `PVTv2(config)` by its name, in the order of `PVTv2.state_dict`."""
    shapes: dict[str, Shape] = {}
    for stage in range(NUM_STAGES):
        shapes |= {f"stages.{stage}.{name}": shape for name, shape in _stage(config, stage).items()}
    if config.num_classes:
        shapes |= _layer("head", (config.num_classes, config.embed_dims[-1]))
    return shapes


def _stage(config: PVTv2Config, stage: int) -> dict[str, Shape]:
    inputs = config.embed_dims[stage - 1] if stage else IMAGE_CHANNELS
    channels, kernel = config.embed_dims[stage], KERNELS[stage]
    shapes = _layer("embed.conv", (channels, inputs, kernel, kernel)) | _layer("embed.norm", (channels,))
    for block in range(config.depths[stage]):
        shapes |= {f"blocks.{block}.{name}": shape for name, shape in _block(config, stage).items()}
    return shapes | _layer("norm", (channels,))


def _block(config: PVTv2Config, stage: int) -> dict[str, Shape]:
    channels = config.embed_dims[stage]
    hidden = channels * config.mlp_ratios[stage]
    window = 1 if config.linear else config.sr_ratios[stage]
    shapes = _layer("norm1", (channels,))
    shapes |= _layer("attention.q", (channels, channels), bias=config.qkv_bias)
    shapes |= _layer("attention.kv", (2 * channels, channels), bias=config.qkv_bias)
    shapes |= _layer("attention.proj", (channels, channels))
    if config.linear or window > 1:
        shapes |= _layer("attention.reduce", (channels, channels, window, window))
        shapes |= _layer("attention.reduce_norm", (channels,))
    shapes |= _layer("norm2", (channels,))
    shapes |= _layer("mlp.fc1", (hidden, channels))
    shapes |= _layer("mlp.dwconv", (hidden, 1, 3, 3))
    return shapes | _layer("mlp.fc2", (channels, hidden))


def _layer(name: str, weight: Shape, *, bias: bool = True) -> dict[str, Shape]:
    """Returns the shapes of a layer's weight and of its bias, which is as long as the weight's first axis."""
    return {f"{name}.weight": weight, **({f"{name}.bias": weight[:1]} if bias else {})}
