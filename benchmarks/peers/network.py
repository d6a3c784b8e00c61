"""transformers' PVTv2 as a careful user runs it on one core, for the peers that need a network."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PvtV2ForImageClassification

from pipeline.infer.allocator import tune_allocator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@torch.inference_mode()
def by_size(
    images: Sequence[np.ndarray], logits: Callable[[np.ndarray], torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best class, int32, and its softmax, float32, of each image; images of one shape run together."""
    ids, scores = np.zeros(len(images), np.int32), np.zeros(len(images), np.float32)
    groups: dict[tuple, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[image.shape].append(index)
    for group in groups.values():
        best, which = logits(np.stack([images[index] for index in group])).softmax(-1).max(-1)
        ids[group], scores[group] = which.numpy(), best.numpy()
    return ids, scores


class Network:
    """The network in one thread, with glibc's allocator tuned and the weights channels last."""

    def __init__(self, weights: str, precision: str) -> None:
        torch.set_num_threads(1)
        tune_allocator()
        model = PvtV2ForImageClassification.from_pretrained(weights).eval()
        self._model = model.to(dtype=DTYPES[precision], memory_format=torch.channels_last)

    def classify(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the best class and its softmax of each image HWC uint8, like `by_size`."""
        return by_size(images, lambda images_BHWC: self.embed(images_BHWC)[1])

    @torch.inference_mode()
    def embed(self, images_BHWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the mean of the last map, (B, C), and the logits, (B, K), both float32, of images BHWC uint8."""
        normal = (images_BHWC.astype(np.float32) / 255 - MEAN) / STD
        pixels = torch.from_numpy(normal).to(self._model.dtype).permute(0, 3, 1, 2)
        embedding = self._model.pvt_v2(pixels.contiguous(memory_format=torch.channels_last))[0].mean((2, 3))
        return embedding.float(), self._model.classifier(embedding).float()
