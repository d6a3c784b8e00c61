"""Tries an engine on a few images before use, and compares its outputs with the outputs of the plain network."""

import logging

import torch

from model.gpu.device_errors import is_out_of_memory
from model.gpu.engine import Engine
from model.network.config import RGB
from model.network.normalise import normalised
from model.network.pvt_v2 import PVTv2, to_embedding

logger = logging.getLogger(__name__)

# Largest allowed difference of embeddings, divided by their length. Rounding makes far smaller differences, and a wrong
# kernel far larger differences.
_TOLERANCES = {torch.float32: 0.01, torch.float16: 0.05, torch.bfloat16: 0.2}
_SIZES = ((64, 40), (37, 75), (64, 40))


@torch.inference_mode()
def engine_for(model: PVTv2, *, mean: RGB, std: RGB) -> Engine | None:
    """Returns an engine for a network on a GPU, or None if no engine can be used; the log then says why.

    Raises:
        torch.OutOfMemoryError: The device has not enough memory for an engine.
    """
    dtype = next(model.parameters()).dtype
    if dtype not in _TOLERANCES:
        logger.warning("engine.unusable: there is none for %s; packs run group by group", dtype)
        return None
    try:
        from model.gpu import kernels as operations

        engine = Engine(model, operations, mean=mean, std=std)
        difference = _difference(engine, model, mean, std)
    except Exception as error:  # a missing or broken compiler can raise any error; packs can run without an engine
        if is_out_of_memory(error):
            raise
        logger.warning("engine.unusable error=%s: %s; packs run group by group", type(error).__name__, error)
        return None
    if difference > _TOLERANCES[dtype]:
        logger.warning("engine.unusable difference=%.3g: its answers are wrong; packs run group by group", difference)
        return None
    return engine


def _difference(engine: Engine, model: PVTv2, mean: RGB, std: RGB) -> float:
    """Returns the largest difference between the engine's and the plain network's embedding of a test image.

    Each difference is divided by the length of the plain network's embedding. If the plain network returns NaN, its
    weights are at fault and not the engine: the result is then 0.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = [[max(side, model.config.min_side_px) for side in size] for size in _SIZES]
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    found_NC = engine.submit(images).result().embedding
    weight = next(model.parameters())
    pixels = [normalised(image[None], mean, std, device=weight.device, dtype=weight.dtype) for image in images]
    maps = [model.forward_features(pixels_BHWC.permute(0, 3, 1, 2))[-1] for pixels_BHWC in pixels]
    plain_NC = torch.cat([to_embedding(map_BCHW) for map_BCHW in maps]).float()
    if not plain_NC.isfinite().all():
        return 0.0
    return float(((found_NC - plain_NC).norm(dim=1) / plain_NC.norm(dim=1)).nan_to_num(float("inf")).max())
