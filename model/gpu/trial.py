"""Whether a GPU's engine can be used here: it is tried once, on images whose answer the plain network gives as well."""

import logging

import torch

from model.gpu.device_errors import is_out_of_memory
from model.gpu.engine import Engine
from model.network.normalise import RGB, normalised
from model.network.pvt_v2 import PVTv2, to_embedding

logger = logging.getLogger(__name__)

# Difference of the embeddings over their length: far above rounding, far below what a wrong kernel does.
_TOLERANCES = {torch.float32: 0.01, torch.float16: 0.05, torch.bfloat16: 0.2}
_SIZES = ((64, 40), (37, 75), (64, 40))


@torch.inference_mode()
def engine_for(model: PVTv2, *, mean: RGB, std: RGB) -> Engine | None:
    """An engine for a network on a GPU, or None where there can be none; the log says why.

    Raises:
        torch.OutOfMemoryError: there is no room for it.
    """
    dtype = next(model.parameters()).dtype
    if dtype not in _TOLERANCES:
        logger.warning("engine.unusable: there is none for %s; packs run group by group", dtype)
        return None
    try:
        from model.gpu import kernels as operations

        engine = Engine(model, operations, mean=mean, std=std)
        difference = _difference(engine, model, mean, std)
    except Exception as error:  # whatever a missing or other compiler may raise: there is another way to run packs
        if is_out_of_memory(error):
            raise
        logger.warning("engine.unusable error=%s: %s; packs run group by group", type(error).__name__, error)
        return None
    if difference > _TOLERANCES[dtype]:
        logger.warning("engine.unusable difference=%.3g: its answers are wrong; packs run group by group", difference)
        return None
    return engine


def _difference(engine: Engine, model: PVTv2, mean: RGB, std: RGB) -> float:
    """Largest difference of an image's embeddings over their length; 0 where the plain network gives no numbers."""
    generator = torch.Generator().manual_seed(0)
    sizes = [[max(side, model.config.min_side_px) for side in size] for size in _SIZES]
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    found_NC = engine.submit(images).result().embedding
    plain_NC = torch.cat(
        [
            to_embedding(model.forward_features(normalised(model, image_HWC[None], mean, std).permute(0, 3, 1, 2))[-1])
            for image_HWC in images
        ]
    ).float()
    if not plain_NC.isfinite().all():
        return 0.0
    return float(((found_NC - plain_NC).norm(dim=1) / plain_NC.norm(dim=1)).nan_to_num(float("inf")).max())
