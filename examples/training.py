"""The loop that trains a PVTv2 on images of mixed sizes, in plain torch; train_digits.py and train_images.py use it."""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from model import IMAGENET_MEAN, IMAGENET_STD, PVTv2, PVTv2Config, normalised

Example = tuple[Tensor, int]
"""An image, HWC, RGB, uint8, and the number of its class."""

WEIGHT_DECAY = 0.05
WARM_UP = 0.05  # share of all steps in which the rate rises
SMOOTHING = 0.1  # share of each target that is spread over all classes
MAX_GRADIENT = 1.0
NUM_THREADS = 2  # fixed, since the order of the sums depends on the number of threads
REPORT_EVERY_S = 15.0


def fresh_weights(config: PVTv2Config, seed: int) -> PVTv2:
    """Returns a network with random weights, in which every branch begins small beside its residual path."""
    generator = torch.Generator().manual_seed(seed)
    model = PVTv2(config)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias) if layer.bias is not None else None
        elif isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5, generator=generator)
            nn.init.zeros_(layer.bias)
    return model


def fit(model: PVTv2, steps: Iterable[Sequence[Example]], num_steps: int, *, rate: float) -> None:
    """Trains all weights in place with AdamW, one update a step; the rate rises to `rate`, then falls as a cosine.

    Args:
        model: Network on the CPU, in float32; gradients are computed on copies that share its weights.
        steps: Images of each update. Images of one size go through the network together.
        num_steps: Number of updates.
        rate: Highest learning rate.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of torch in each thread of the pool; small layers gain nothing from more
    models = [copy.deepcopy(model).requires_grad_(True) for _ in range(NUM_THREADS)]
    for each in models:
        for shared, parameter in zip(model.parameters(), each.parameters(), strict=True):
            parameter.data = shared.data
    optimizer = _optimizer(models[0])
    begin = reported = time.monotonic()
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for step, examples in enumerate(steps):
            parts = [examples[start::NUM_THREADS] for start in range(min(NUM_THREADS, len(examples)))]
            losses, counts = zip(*pool.map(_backward, models, parts), strict=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * _share_of_rate(step, num_steps)
            for parameter, *others in zip(*(each.parameters() for each in models), strict=True):
                for other in others[: len(parts) - 1]:
                    parameter.grad += other.grad
                parameter.grad /= len(examples)
            nn.utils.clip_grad_norm_(models[0].parameters(), MAX_GRADIENT)
            optimizer.step()
            for each in models:
                each.zero_grad()
            if time.monotonic() - reported > REPORT_EVERY_S or step == num_steps - 1:
                reported = time.monotonic()
                loss, right = sum(losses) / len(examples), sum(counts) / len(examples)
                print(
                    f"step {step + 1}/{num_steps}: loss {loss:.3f}, {right:.0%} right, {reported - begin:.0f} s",
                    flush=True,
                )
    torch.set_num_threads(threads_before)


def _optimizer(model: PVTv2) -> torch.optim.Optimizer:
    """Returns AdamW, with weight decay for weights, and without weight decay for biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups)


def _share_of_rate(step: int, num_steps: int) -> float:
    warm_up = max(1, round(WARM_UP * num_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up)))


def _backward(model: PVTv2, examples: Sequence[Example]) -> tuple[float, int]:
    """Adds the gradients of the summed loss to the parameters; returns the loss, and the number of right classes."""
    by_size: dict[tuple[int, ...], list[Example]] = defaultdict(list)
    for example in examples:
        by_size[tuple(example[0].shape)].append(example)
    total, num_right = 0.0, 0
    for group in by_size.values():
        images_BHWC = torch.stack([image for image, _ in group])
        classes_B = torch.tensor([number for _, number in group])
        pixels_BHWC = normalised(images_BHWC, IMAGENET_MEAN, IMAGENET_STD)
        logits_BK = model(pixels_BHWC.permute(0, 3, 1, 2))
        loss = cross_entropy(logits_BK, classes_B, reduction="sum", label_smoothing=SMOOTHING)
        loss.backward()
        total += loss.item()
        num_right += int((logits_BK.argmax(dim=1) == classes_B).sum())
    return total, num_right
