"""The demo: classifies digits that the shipped weights never saw, with the real job on a local Ray, and prints rows.

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

_SOME = """
    SELECT parse_filename(shard) AS shard, key, width || 'x' || height AS size,
           net_width || 'x' || net_height AS network_saw, true_label, label, printf('%.3f', score) AS score,
           if(label = true_label, 'right', 'wrong') AS verdict
    FROM rows WHERE status = 'ok' ORDER BY label = true_label, hash(image_id) LIMIT 12
"""
_FAILED = """
    SELECT parse_filename(shard) AS shard, key, error_code, error_message[:60] AS error_message
    FROM rows WHERE status = 'failed' ORDER BY shard, row
"""
# The grouping sets add a last line for all bands together.
_ACCURACY = """
    SELECT coalesce(band, 'all') AS shorter_side, count(*) AS images, sum(is_right) AS right,
           printf('%.1f %%', 100 * avg(is_right)) AS accuracy
    FROM (
        SELECT (label = true_label)::int AS is_right, least(width, height) AS side,
               CASE WHEN side < 32 THEN '20-31 px, enlarged' WHEN side < 64 THEN '32-63 px'
                    WHEN side < 128 THEN '64-127 px' WHEN side < 256 THEN '128-255 px' ELSE '256-512 px' END AS band
        FROM rows WHERE status = 'ok'
    ) GROUP BY GROUPING SETS ((band), ()) ORDER BY grouping(band), min(side)
"""


def main() -> int:
    """Runs the demo; returns the job's exit code."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    shards, output = FOLDER / "shards", FOLDER / "output"
    subprocess.run([sys.executable, "examples/sample_shards.py", "--out", shards], cwd=ROOT, check=True)
    job = ["jobs/classify.py", "--input", shards, "--weights", ROOT / "weights" / "digits", "--output", output]
    print("\n$", " ".join(["python", *map(_short, job)]), flush=True)
    result = subprocess.run([sys.executable, *job], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        return result.returncode
    summary = json.loads(result.stdout.splitlines()[-1])
    database = duckdb.connect()
    database.execute(f"CREATE VIEW rows AS FROM '{output / 'data' / '*.parquet'}'")
    print("\nSome of the rows, those with the wrong label first:\n")
    print(_table(database.sql(_SOME)))
    print("\nFiles that are broken are rows too:\n")
    print(_table(database.sql(_FAILED)))
    print("\nLabels against the true ones, which came along in the shards:\n")
    print(_table(database.sql(_ACCURACY)))
    print(
        f"\n{summary['listed']} images: {summary['ok']} ok, {summary['failed']} failed {summary['failed_by_code']}\n"
        f"{summary['images_per_s']} images/s, {summary['mpix_per_s']} Mpx/s, {summary['gmac_per_s']} GMAC/s over the "
        f"whole run of {summary['seconds']} s; {summary['steady_images_per_s']} images/s once it was running\n"
        f"rows:   {_short(output / 'data')}/*.parquet\n"
        f"report: {_short(summary['report'])}"
    )
    return 0


def _table(relation: duckdb.DuckDBPyRelation) -> str:
    """Returns the rows of a query as text in columns."""
    texts = [relation.columns, *([str(value) for value in row] for row in relation.fetchall())]
    widths = [max(len(text[i]) for text in texts) for i in range(len(texts[0]))]
    return "\n".join("  ".join(map(str.ljust, text, widths)).rstrip() for text in texts)


def _short(part: object) -> str:
    """Returns a path relative to the checkout."""
    return str(part).removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    sys.exit(main())
