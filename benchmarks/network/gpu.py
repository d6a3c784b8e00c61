"""The network on a GPU, measured in minutes by one call: exactness, speed against timm and transformers, limits.

    python -m benchmarks.network.gpu --out benchmarks/results/gpu          # writes gpu.json and gpu.md
    python -m benchmarks.network.gpu --device cpu --quick --out /tmp/gpu   # shows that it runs where there is no GPU

Each section runs in a process of its own with a time limit. The report names a section that fails or has no time left,
and the other sections still run. The most important sections come first. The report names peers that are not installed.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.network import gpu_sections
from benchmarks.network.gpu_peers import missing
from benchmarks.network.gpu_sections import Setting
from model import VARIANTS

PACKAGES = ("torch", "triton", "timm", "transformers", "numpy")
# Name, function, arguments, and time limit in seconds of each section.
Section = tuple[str, str, dict[str, Any], float]


def sections(quick: bool) -> list[Section]:
    """Returns the sections in the order in which they run."""
    all_of: list[Section] = [
        ("machine", "machine", {}, 60),
        ("exactness", "exactness", {}, 100),
        *(_speed(variant, 224, 224) for variant in ("b0", "b2")),
        *((f"mixed {variant}", "mixed", {"variant": variant}, 60) for variant in ("b0", "b2")),
        _speed("b2", 375, 500),
        *((f"launches {variant}", "launches", {"variant": variant}, 40) for variant in ("b0", "b2")),
        *((f"overlap {variant}", "overlap", {"variant": variant}, 40) for variant in ("b0", "b2")),
        _compiled("b2", "bf16"),
        _compiled("b0", "bf16"),
        *(_speed(variant, 224, 224) for variant in VARIANTS if variant not in ("b0", "b2")),
        _compiled("b2", "amp-fp16"),
        _compiled("b0", "amp-fp16"),
    ]
    kept = ("machine", "exactness", "speed b0 224x224", "mixed b0", "launches b0", "overlap b0")
    return [section for section in all_of if not quick or section[0] in kept]


def _speed(variant: str, height: int, width: int) -> Section:
    arguments = {"variant": variant, "height": height, "width": width}
    return f"speed {variant} {height}x{width}", "speed", arguments, 60


def _compiled(variant: str, precision: str) -> Section:
    return f"compiled {variant} {precision}", "compiled", {"variant": variant, "precision": precision}, 100


def run_section(flags: argparse.Namespace, name: str, limit_s: float) -> dict[str, Any]:
    """Runs a section; returns its results, or the reason why there are none."""
    answer = Path(f"{flags.out}.part.json")
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.network.gpu", "--section", name, "--out", str(answer)]
    command += ["--device", flags.device, *(["--quick"] if flags.quick else [])]
    command += ["--sizes", str(flags.sizes)] if flags.sizes else []
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {limit_s:.0f} s"}
    if run.returncode or not answer.exists():
        return {"failed": f"exit code {run.returncode}", "last_words": run.stderr[-2000:]}
    found = json.loads(answer.read_text())
    answer.unlink()
    return found


def markdown(report: dict[str, Any]) -> str:
    """Returns the report as Markdown tables."""
    found = report["sections"]
    lines = ["# The network on a GPU", ""]
    lines += [f"- {key}: {value}" for key, value in found.get("machine", {}).items() if key != "seconds"]
    lines += [f"- {key}: {value}" for key, value in report["versions"].items()]
    if report["left_out"]:
        lines.append(f"- not installed and left out: {', '.join(report['left_out'])}")
    for name, section in found.items():
        if "failed" in section or "left_out" in section:
            lines += ["", f"**{name}**: {section.get('failed') or section['left_out']}"]
        elif "ways" in section:
            lines += ["", f"**{name}**", "", *_ways(section, found.get("machine", {}))]
        elif name == "exactness":
            lines += ["", "**Largest error of a logit against float64**", "", *_errors(section)]
        elif name != "machine":
            lines += ["", f"**{name}**", "", "```", json.dumps(section, indent=1), "```"]
    return "\n".join(lines) + "\n"


def _ways(section: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    lines = ["| how | images/s | TFLOP/s | of the measured peak | peak MiB |", "| --- | --- | --- | --- | --- |"]
    for how, way in section["ways"].items():
        peak = machine.get("matmul_tflops_" + next((d for d in ("fp32", "fp16") if d in how), "bf16"))
        tflops = way.get("tflops")
        if tflops is None and "macs" in section and "images_per_s" in way:
            tflops = round(2 * section["macs"] * way["images_per_s"] / 1e12, 2)
        share = f"{tflops / peak:.1%}" if tflops and peak else ""
        speed = way.get("images_per_s", way.get("failed", ""))
        lines.append(f"| {how} | {speed} | {tflops or ''} | {share} | {way.get('peak_allocated_mib', '')} |")
    return lines


def _errors(section: dict[str, Any]) -> list[str]:
    lines = ["| variant | fp32, ours | fp32, plain | bf16, ours | bf16, plain |", "| --- | --- | --- | --- | --- |"]
    for variant, errors in section.items():
        if isinstance(errors, dict):
            values = [errors[dtype][whose] for dtype in ("fp32", "bf16") for whose in ("ours", "plain")]
            lines.append(f"| {variant} | " + " | ".join(f"{value:.2g}" for value in values) + " |")
    return lines


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny settings that only show that it runs")
    parser.add_argument("--sizes", type=Path, help="CSV with width,height,count; default: a few common sizes")
    parser.add_argument("--minutes", type=float, default=8.0, help="no section begins that could end later")
    parser.add_argument("--only", help="sections whose names hold this")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True, help="without an ending: .json and .md are written")
    flags = parser.parse_args()
    if flags.section:
        _, function, arguments, _ = next(s for s in sections(flags.quick) if s[0] == flags.section)
        setting = Setting(device=flags.device, quick=flags.quick, sizes=flags.sizes)
        flags.out.write_text(json.dumps(getattr(gpu_sections, function)(setting, **arguments)))
        return
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    report: dict[str, Any] = {
        "command": " ".join(sys.argv[1:]),
        "versions": versions(),
        "left_out": missing(),
        "sections": {},
    }
    for name, _, _, limit_s in sections(flags.quick):
        if flags.only and flags.only not in name:
            continue
        left_s = flags.minutes * 60 - (time.perf_counter() - started)
        begun = time.perf_counter()
        found = run_section(flags, name, min(limit_s, left_s)) if left_s > 15 else {"failed": "no time was left"}
        found["seconds"] = round(time.perf_counter() - begun, 1)
        report["sections"][name] = found
        print(name, json.dumps(found)[:300], flush=True)
        Path(f"{flags.out}.json").write_text(json.dumps(report, indent=1) + "\n")
        Path(f"{flags.out}.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
