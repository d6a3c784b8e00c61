"""The measurements of `gpu.py`: each function is one section, runs in a process of its own, and returns JSON values.

Speeds are images a second over timed runs after warm-up runs, and the device is synchronised at both ends. Our network
takes bytes HWC and normalises them. The pixels of the peers are floats on the device, as in their own benchmarks. All
weights are random.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.network.gpu_peers import installed, ways
from benchmarks.tools.photos import read_sizes
from model import IMAGENET_MEAN, IMAGENET_STD, VARIANTS, PVTv2, PVTv2Config, count_macs, random_weights
from model.gpu import plain
from model.gpu.engine import MAX_TOKENS, Engine
from pipeline.infer.packs import Budget, plan_packs

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device and the amount of measuring; a `quick` setting only shows that the sections run."""

    device: str
    quick: bool
    sizes: Path | None

    @property
    def runs(self) -> tuple[int, int]:
        """Numbers of warm-up runs and of timed runs, which are those of timm's own benchmark."""
        return (1, 2) if self.quick else (10, 50)

    @property
    def max_tokens(self) -> int:
        return 4096 if self.quick else MAX_TOKENS

    def config(self, variant: str) -> PVTv2Config:
        return VARIANTS[variant]

    def engine(self, variant: str, dtype: str = "bf16", **flags: Any) -> Engine:
        model = random_weights(self.config(variant), 0).to(self.device, DTYPES[dtype])
        return engine_of(model, self, **flags)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def engine_of(model: PVTv2, setting: Setting, **flags: Any) -> Engine:
    operations: Any = plain
    if setting.device == "cuda":
        from model.gpu import kernels as operations
    flags = {"max_tokens": setting.max_tokens} | flags
    return Engine(model, operations, mean=IMAGENET_MEAN, std=IMAGENET_STD, **flags)


def drawn(sizes: Sizes, seed: int = 0) -> list[Tensor]:
    """Returns images HWC of random bytes in the host's memory."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


def seconds(setting: Setting, run: Callable[[], object], *, budget_s: float = 12.0) -> float:
    """Returns the median seconds of a run; makes fewer runs than `Setting.runs` says if the budget is used up."""
    warm_up, timed = setting.runs
    started = time.perf_counter()
    for _ in range(warm_up):
        run()
        setting.wait()
        if time.perf_counter() - started > budget_s:
            break
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < timed and (len(taken) < 2 or time.perf_counter() - started < budget_s):
        begun = time.perf_counter()
        run()
        setting.wait()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


@contextmanager
def peak_memory(setting: Setting, into: dict[str, Any]) -> Iterator[None]:
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield
    if setting.device == "cuda":
        into["peak_allocated_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        into["peak_reserved_mib"] = round(torch.cuda.max_memory_reserved() / 2**20)


def machine(setting: Setting) -> dict[str, Any]:
    """Returns the device, and its highest rates of matrix products and copies."""
    found: dict[str, Any] = {"device": setting.device}
    if setting.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    side = 256 if setting.quick else 8192
    for name, dtype in DTYPES.items():
        a = torch.randn(side, side, device=setting.device).to(dtype)
        taken = seconds(setting, lambda a=a: a @ a, budget_s=3)
        found[f"matmul_tflops_{name}"] = round(2 * side**3 / taken / 1e12, 2)
    source = torch.empty(2**20 if setting.quick else 2**30, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    taken = seconds(setting, lambda: target.copy_(source), budget_s=3)
    found["copy_gb_s_read_and_written"] = round(2 * len(source) / taken / 1e9, 1)
    if setting.device == "cuda":
        pinned = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
        taken = seconds(setting, lambda: target[: 2**28].copy_(pinned, non_blocking=True), budget_s=3)
        found["host_to_device_gb_s"] = round(len(pinned) / taken / 1e9, 1)
    return found


@torch.inference_mode()
def exactness(setting: Setting) -> dict[str, Any]:
    """Returns the largest errors of a logit against the plain network in float64.

    The errors are those of our engine, and those of the plain network in the same lower precision.
    """
    torch.backends.cudnn.allow_tf32 = False
    images = drawn([(64, 48)] if setting.quick else [(224, 224), (375, 500), (333, 229), (32, 640), (45, 61)])
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = [((image.permute(2, 0, 1).double() / 255 - mean) / std)[None].to(setting.device) for image in images]
    found: dict[str, Any] = {}
    for variant in ["b0"] if setting.quick else VARIANTS:
        exact = random_weights(setting.config(variant), 0).to(setting.device, torch.float64)
        expected = torch.cat([exact(pixels_1CHW) for pixels_1CHW in pixels])
        found[variant] = {"largest_logit": float(expected.abs().max())}
        for name in ("fp32", "bf16"):
            model = random_weights(setting.config(variant), 0).to(setting.device, DTYPES[name])
            theirs = torch.cat([model(pixels_1CHW.to(DTYPES[name])) for pixels_1CHW in pixels]).double()
            ours = engine_of(model, setting).submit(images).result().logits.double()
            found[variant][name] = {
                "ours": float((ours - expected).abs().max()),
                "plain": float((theirs - expected).abs().max()),
            }
    return found


def _speeds(
    setting: Setting, variant: str, size: tuple[int, int], batches: Sequence[int], libraries: Sequence[str]
) -> dict[str, Any]:
    """Returns the speeds of our packs of images of one size, and of the peers at each of the batch sizes."""
    ways_found: dict[str, Any] = {}
    tokens = -(-size[0] // 4) * -(-size[1] // 4)
    count = max(1, setting.max_tokens // tokens)
    images = drawn([size] * count)
    on_device = [image.to(setting.device) for image in images]
    for dtype in ("bf16",) if setting.quick else ("bf16", "fp16", "fp32"):
        way = ways_found[f"ours, {dtype}"] = {"batch": count}
        with peak_memory(setting, way):
            engine = setting.engine(variant, dtype)
            taken = seconds(setting, lambda engine=engine: engine.submit(on_device).result(), budget_s=4)
            way["images_per_s"] = round(count / taken, 1)
            taken = seconds(setting, lambda engine=engine: engine.submit(images).result(), budget_s=2)
            way["images_per_s_from_host_one_pack_at_a_time"] = round(count / taken, 1)
        way["tflops"] = round(2 * count_macs(setting.config(variant), *size) * way["images_per_s"] / 1e12, 2)
        del engine
    for library in libraries:
        for how, forward in ways(library, variant, setting.device):
            for batch in batches:
                way = ways_found[f"{how}, batch {batch}"] = {"batch": batch}
                try:
                    with peak_memory(setting, way):
                        pixels_BCHW = torch.randn(batch, 3, *size, device=setting.device)
                        taken = seconds(setting, lambda f=forward, p=pixels_BCHW: f(p), budget_s=2)
                    way["images_per_s"] = round(batch / taken, 1)
                except RuntimeError as error:
                    way["failed"] = str(error)[:200]
            if setting.quick:
                break
    return {"macs": count_macs(setting.config(variant), *size), "ways": ways_found}


def speed(setting: Setting, variant: str, height: int, width: int) -> dict[str, Any]:
    """Returns images per second of our packs and of the peers, for images of one size."""
    batches = [2] if setting.quick else [max(1, 256 * 224 * 224 // (height * width))]
    return _speeds(setting, variant, (height, width), batches, installed())


def compiled(setting: Setting, variant: str, precision: str) -> dict[str, Any]:
    """Returns images per second of timm's network at 224x224, compiled by torch, at batch size 256."""
    if "timm" not in installed():
        return {"left_out": "timm is not installed"}
    batch = 1 if setting.quick else 256
    ways_found: dict[str, Any] = {}
    for how, forward in ways("timm", variant, setting.device, precisions=[precision], compile_it=True):
        pixels_BCHW = torch.randn(batch, 3, 224, 224, device=setting.device)
        compile_s = _seconds_once(setting, forward, pixels_BCHW)
        taken = seconds(setting, lambda f=forward, p=pixels_BCHW: f(p), budget_s=3)
        ways_found[how] = {"batch": batch, "images_per_s": round(batch / taken, 1), "compile_s": round(compile_s, 1)}
    return {"macs": count_macs(setting.config(variant), 224, 224), "ways": ways_found}


def _in_turn(engine: Engine, packs: Sequence[Sequence[Tensor]], ahead: bool) -> None:
    """Runs the packs and copies their logits to the host; with `ahead`, the next pack is submitted before the copy."""
    pending = None
    for pack in packs:
        ticket = engine.submit(pack)
        if not ahead:
            ticket.result().logits.cpu()
            continue
        if pending is not None:
            pending.result().logits.cpu()
        pending = ticket
    if pending is not None:
        pending.result().logits.cpu()


def mixed(setting: Setting, variant: str) -> dict[str, Any]:
    """Returns images per second over mixed native sizes, from and to the host's memory; peers run image by image."""
    rng = np.random.default_rng(1)
    known = read_sizes(setting.sizes)
    count = 2 if setting.quick else 768
    sizes = [(known[i][1], known[i][0]) for i in rng.integers(len(known), size=count)]
    images = drawn(sizes)
    packs = [[images[i] for i in pack] for pack in plan_packs(sizes, Budget(setting.max_tokens, 2**28))]
    macs = sum(count_macs(setting.config(variant), *size) for size in sizes)
    ways_found: dict[str, Any] = {}
    for dtype in ("bf16",) if setting.quick else ("bf16", "fp32"):
        engine = setting.engine(variant, dtype)
        for how, ahead in (("packs handed in ahead", True), ("pack by pack", False)):
            _in_turn(engine, packs, ahead)  # this run captures the graphs
            taken = [_seconds_once(setting, _in_turn, engine, packs, ahead) for _ in range(3)]
            ways_found[f"ours, {dtype}, {how}"] = {
                "images_per_s": round(count / min(taken), 1),
                "tflops": round(2 * macs / min(taken) / 1e12, 2),
                "packs": len(packs),
                "graphs": engine.num_graphs(),
            }
    mean, std = (torch.tensor(v, device=setting.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    few = images[: 2 if setting.quick else 96]
    for library in installed():
        for how, forward in ways(library, variant, setting.device):

            def one_by_one(forward: Callable = forward) -> None:
                for image_HWC in few:
                    pixels_CHW = image_HWC.to(setting.device, non_blocking=True).permute(2, 0, 1).float()
                    output = forward(((pixels_CHW / 255 - mean) / std)[None])
                    getattr(output, "logits", output).cpu()

            one_by_one()
            ways_found[f"{how}, batch 1"] = {"images_per_s": round(len(few) / _seconds_once(setting, one_by_one), 1)}
            if setting.quick:
                break
    return {"images": count, "mean_macs": macs // count, "ways": ways_found}


def _seconds_once(setting: Setting, run: Callable[..., object], *arguments: Any) -> float:
    setting.wait()
    begun = time.perf_counter()
    run(*arguments)
    setting.wait()
    return time.perf_counter() - begun


def launches(setting: Setting, variant: str) -> dict[str, Any]:
    """Returns the kernel launches of a full pack and of a pack of one image, and the milliseconds of each pack.

    Milliseconds are given with and without a CUDA graph.
    """
    found: dict[str, Any] = {}
    size = (224, 224)
    full = [image.to(setting.device) for image in drawn([size] * max(1, setting.max_tokens // 3136))]
    for name, images in (("full pack", full), ("one image", full[:1])):
        eager = setting.engine(variant, use_graphs=False)
        eager.submit(images).result()
        found[name] = {"images": len(images), "ms_launch_by_launch": _ms(setting, eager, images)}
        if setting.device != "cuda":
            continue
        captured = setting.engine(variant)
        found[name]["first_run_s"] = round(_seconds_once(setting, _submit, captured, images), 2)
        found[name]["ms_graph"] = _ms(setting, captured, images)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            eager.submit(images).result()
            setting.wait()
        kernels = [event for event in profile.key_averages() if event.device_time_total]
        found[name]["launches"] = sum(event.count for event in kernels)
        longest = sorted(kernels, key=lambda event: -event.device_time_total)[:14]
        found[name]["kernels_ms"] = {event.key[:60]: round(event.device_time_total / 1000, 3) for event in longest}
    return found


def _submit(engine: Engine, images: Sequence[Tensor]) -> None:
    engine.submit(images).result()


def _ms(setting: Setting, engine: Engine, images: Sequence[Tensor]) -> float:
    return round(1000 * seconds(setting, lambda: engine.submit(images).result(), budget_s=4), 3)


def overlap(setting: Setting, variant: str) -> dict[str, Any]:
    """Returns the milliseconds of a pack in three cases.

    The images are on the device; on the host, with packs submitted ahead; or on the host, with one pack at a time.
    """
    size = (224, 224)
    count = max(1, setting.max_tokens // 3136)
    packs = [drawn([size] * count, seed) for seed in range(2 if setting.quick else 20)]
    on_device = [[image.to(setting.device) for image in pack] for pack in packs]
    engine = setting.engine(variant)
    found: dict[str, Any] = {"packs": len(packs), "images": count, "mib_per_pack": round(count * 150528 / 2**20, 1)}
    for how, given, ahead in (
        ("on the device", on_device, True),
        ("from the host, ahead", packs, True),
        ("from the host, one by one", packs, False),
    ):
        _in_turn(engine, given, ahead)
        taken = min(_seconds_once(setting, _in_turn, engine, given, ahead) for _ in range(3))
        found[how] = {"ms_per_pack": round(1000 * taken / len(packs), 3)}
    return found
