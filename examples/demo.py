"""The demo: sample shards, the real job on a local Ray, and a look at what came out.

make demo
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"

_ROWS = """
    SELECT parse_filename(shard) AS shard, key, status, coalesce(error_code, '') AS error_code,
           width || 'x' || height AS size, net_width || 'x' || net_height AS network_saw,
           label_id, printf('%.3f', score) AS score
    FROM read_parquet($files) ORDER BY status, shard, row LIMIT 12
"""


def main() -> int:
    """Runs the demo; the exit code is the job's."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    shards, weights, output = FOLDER / "shards", FOLDER / "weights", FOLDER / "output"
    run = [sys.executable]
    subprocess.run([*run, "examples/sample_shards.py", "--out", shards], cwd=ROOT, check=True)
    subprocess.run([*run, "examples/random_checkpoint.py", "--variant", "b0", "--out", weights], cwd=ROOT, check=True)
    job = [*run, "jobs/classify.py", "--input", shards, "--weights", weights, "--output", output]
    print("\n$", " ".join(["python", *(_short(part) for part in job[1:])]), flush=True)
    result = subprocess.run(job, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    summary = json.loads(result.stdout.splitlines()[-1])
    if result.returncode:
        return result.returncode
    print("\nThe weights are random: the labels below mean nothing, the rest is real.\n")
    rows = duckdb.sql(_ROWS, params={"files": str(output / "data" / "*.parquet")})
    print(_table(list(rows.columns), rows.fetchall()))
    print(
        f"\n{summary['listed']} images: {summary['ok']} ok, {summary['failed']} failed {summary['failed_by_code']}\n"
        f"{summary['images_per_s']} images/s, {summary['mpix_per_s']} Mpix/s, {summary['gmac_per_s']} GMAC/s over the "
        f"whole run of {summary['seconds']} s; {summary['steady_images_per_s']} images/s once it was running\n"
        f"rows:   {_short(output / 'data')}/*.parquet\n"
        f"report: {_short(summary['report'])}"
    )
    return 0


def _table(names: list[str], rows: list[tuple]) -> str:
    """The rows as text, in columns."""
    texts = [names, *([("" if value is None else str(value)) for value in row] for row in rows)]
    widths = [max(len(text[i]) for text in texts) for i in range(len(names))]
    return "\n".join("  ".join(value.ljust(width) for value, width in zip(text, widths, strict=True)) for text in texts)


def _short(part: object) -> str:
    """A path as it is seen from the checkout."""
    text = str(part)
    return text.removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    sys.exit(main())
