"""A report with all that one may hold, and the timeline that goes with it, for tests of the page."""

import base64
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image

SCRIPT = "<script>document.title='planted'</script>"
IMAGE = '"><img src=x onerror="document.title=\'planted\'">'
PROCESSES = (("compute", 0.97), ("compute", 0.95), ("decode", 0.08), ("read", 0.01))
STARTED_AT = datetime(2026, 11, 26, 17, 23, 50, tzinfo=UTC)


def thumbnail(width: int, height: int) -> str:
    """A picture of a gradient, as a report holds it."""
    body = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(body, "JPEG")
    return base64.b64encode(body.getvalue()).decode()


def minimal_report(**changes: Any) -> dict[str, Any]:
    """A report as the first versions wrote it."""
    totals = {
        "listed": 1441, "ok": 1438, "failed": 3, "failed_by_code": {"decode.corrupt": 2, "source.missing": 1},
        "ignored": 2, "bytes": 41_553_000, "pixels": 314_073_200, "macs": 4_358_308_786_304, "files": 1,
    }  # fmt: skip
    return {
        "run_id": "20261126T172350Z-ff3b", "status": "done", "reason": None, "run": totals,
        "output": {**totals, "listed": 20_000, "ok": 19_997, "files": 5}, "problems": [],
        "seconds": {
            "wall": 149.661, "model_load": 0.056, "first_row": 16.522, "steady": 32.924,
            "steps": {"read": 0.362, "decode": 4.925, "infer": 273.971},
        },
        "rates": {"images_per_s": 29.017, "mpix_per_s": 6.324, "gmac_per_s": 87.761, "steady_images_per_s": 43.767},
        **changes,
    }  # fmt: skip


def full_report(**changes: Any) -> dict[str, Any]:
    """A report with every section, whose names, labels and messages are hostile here and there."""
    small = minimal_report()
    return {
        **small,
        "started_at": STARTED_AT.isoformat(),
        "seconds": {**small["seconds"], "listing": 2.5, "drain": 1.25},
        "rates": {
            **small["rates"],
            "steady": {"images_per_s": 43.767, "mpix_per_s": 9.54, "gmac_per_s": 132.4},
            "model": {"images_per_s": 47.1, "mpix_per_s": 10.2, "gmac_per_s": 141.9},
        },
        "work": {
            "requests": 1234, "retries": 7, "bytes_in": 41_553_000, "bytes_out": 512_345, "tokens": 98_765_432,
            "packs": 321, "pack_fill": 0.937, "chunks": 88, "replayed_chunks": 2,
        },
        "efficiency": {"peak_gflops": 1024.5, "mfu": 0.274},
        "sizes": [
            {"from_px": low, "to_px": high, "images": images, "pixels": images * low * low, "macs": images * low * 4500,
             "compute_s": images * low / 1500}
            for low, high, images in ((32, 64, 40), (64, 128, 120), (128, 256, 433), (256, 512, 680), (512, 1024, 150),
                                      (1024, 2048, 15))
        ],
        "labels": [
            *({"label": f"class {index}", "images": 200 - 7 * index} for index in range(24)),
            {"label": f"owl {SCRIPT}", "images": 9},
            {"label": None, "images": 1234},
        ],
        "scores": {
            "edges": [index / 20 for index in range(21)],
            "images": [0, 3, 9, 17, 25, 31, 40, 44, 52, 55, 61, 66, 72, 80, 88, 95, 111, 140, 191, 258],
        },
        "samples": [
            {"image_id": f"s3://photos/train/{name}", "shard": "s3://photos/train/shard-00001.tar", "label": label,
             "score": score, "width": 10 * width, "height": 10 * height, "thumbnail": thumbnail(width, height)}
            for name, label, score, width, height in (
                ("shard-00001.tar#0001", "cat", 0.934, 96, 72), (f"{IMAGE}.jpg", f"owl {SCRIPT}", 0.5, 72, 96),
                ("a/b/c/" + "long_name_" * 9 + ".jpg", "black-footed ferret, ferret, Mustela nigripes", 0.0312, 1, 96),
                ("0002.jpg", "x" * 80, None, 96, 1), ("0003.jpg", None, None, 32, 32),
            )
        ],
        "failures": [
            {"code": "decode.corrupt", "images": 2, "examples": [
                {"image_id": f"s3://photos/{IMAGE}.jpg", "error_message": f"cut short at byte 4,711 {SCRIPT}"},
                {"image_id": "s3://photos/a/b/c/0002.jpg", "error_message": "premature end of the file"},
            ]},
            {"code": "source.missing", "images": 1, "examples": [
                {"image_id": "s3://photos/gone.jpg", "error_message": "not found"},
            ]},
        ],
        "shards": [
            {"shard": f"s3://photos/train/shard-{index:05d}.tar", "images": 400 - index, "seconds": 80.5 - 9 * index}
            for index in range(5)
        ],
        "processes": [
            {"process": f"node-a:{4700 + index}", "step": step, "images": 700 + index, "busy_s": 120.5 - 3 * index,
             "busy_share": share}
            for index, (step, share) in enumerate(PROCESSES)
        ],
        "cost": {"gpu_hours": 0.125, "price_per_hour": 2.5, "per_million_images": 216.9},
        "verdict": {
            "bound_by": "compute",
            "sentence": "The network was busy for 96 % of the run: more or faster processors make it faster.",
            "advice": ["Give it more CPUs: reading and decoding have room.", "Try --precision bf16."],
        },
        "ray": {
            "operators": [
                {
                    "name": name,
                    "tasks": 12,
                    "failed_tasks": 1,
                    "scheduling_s": 1.5,
                    "held_back_s": 20.25,
                    "output_held_back_s": 0.0,
                }
                for name in ("read", "decode", "infer", "sink")
            ],
            "spilled_bytes": 3 * 2**20,
            "restored_bytes": 0,
        },
        "actors": {"device": "cpu", "min": 2, "max": 2},
        "versions": {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu"},
        "identity": {
            "job": "classify", "top_k": 5, "precision": "bf16", "weights_revision": None,
            "model": {"embed_dims": [32, 64, 160, 256], "num_classes": 1000, "linear": False},
            "records": {"include": [f"*{IMAGE}*"]},
        },
        "passes": 1,
        **changes,
    }  # fmt: skip


def timeline_rows(num_buckets: int = 60, width_s: float = 2.0) -> list[dict[str, Any]]:
    """Two processes that compute, one that decodes and one that reads, bucket by bucket."""
    rows = []
    for bucket in range(num_buckets):
        begin = STARTED_AT + timedelta(seconds=bucket * width_s)
        swing = 0.85 + 0.13 * ((bucket * 7) % 11) / 11
        for step, process, share in (
            ("read", "a:1", 0.9 if bucket < 4 else 0.1 + 0.1 * (bucket % 3)), ("decode", "a:2", 0.35 * swing),
            ("compute", "a:3", swing), ("compute", "a:4", swing * 0.97), ("write", "a:5", 0.05 * (bucket % 5)),
        ):  # fmt: skip
            images = 24.0 * share
            rows.append(
                {"begins_at": begin, "width_s": width_s, "step": step, "process": process, "busy_s": share * width_s,
                 "images": images, "pixels": images * 2.2e5, "macs": images * 3e9}
            )  # fmt: skip
    return rows
