"""Makes an HTML page of rows of a data set that a person should check; the choices become overrides of the data set.

    python examples/review_labels.py s3://bucket/dataset --html review.html
    python examples/review_labels.py s3://bucket/dataset --html cats.html --decision accepted --order label --limit 200

The page contains its thumbnails and loads nothing, so it can be sent to anybody who knows the images
(docs/use/reviewing.md).
"""

import argparse
import base64
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from examples.review_images import ShardRules, pictures
from pipeline.config.identity import rules_of, stored_setting
from pipeline.dataset.dataset_file import labels_file
from pipeline.dataset.labels import DECISIONS, LABEL_SCHEMA
from pipeline.errors import PipelineError
from pipeline.inputs.names import NameFilter
from pipeline.store.config import StoreConfig
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri, shown

HERE = Path(__file__).resolve().parent
_ORDERS = {"score": ("score", "image_id"), "label": ("label", "score", "image_id")}
# Reasons of a data set's decisions -> the texts that the page shows.
_REASONS = {
    "score.low": "not sure enough",
    "class.dropped": "a class that is dropped",
    "override": "corrected by a person",
    "override.outdated": "another image since a person corrected it",
}
_NUM_QUICK = 9

Row = dict[str, Any]


def read_rows(file: StorePath, decision: str) -> tuple[pa.Table, Counter[str]]:
    """Returns the rows with a decision, and the count of each label in the whole data set.

    Memory holds the rows with the decision, and no others.

    Raises:
        FileNotFoundError: There is no data set at the URI.
    """
    info = file.head()
    if info is None:
        raise FileNotFoundError(f"there is no {file.shown}; give the output of a data set")
    tables, labels = [], Counter[str]()
    with file.open(size=info.size, etag=info.etag) as source, pq.ParquetFile(source) as parquet:
        for batch in parquet.iter_batches(columns=LABEL_SCHEMA.names):
            for each in pc.value_counts(batch.column("label")).to_pylist():
                labels[each["values"]] += each["counts"]
            tables.append(pa.Table.from_batches([batch]).filter(pc.equal(batch.column("decision"), decision)))
        rows = pa.concat_tables(tables) if tables else parquet.schema_arrow.empty_table()
    return rows, Counter({label: count for label, count in labels.items() if label})


def first_rows(rows: pa.Table, order: str, limit: int) -> list[Row]:
    """Returns the first `limit` rows: by rising score, so that the least certain rows are first, or by label.

    Rows without a score or a label come last.
    """
    keys = [(name, "ascending", "at_end") for name in _ORDERS[order]]
    return rows.take(pc.sort_indices(rows, sort_keys=keys).slice(0, limit)).to_pylist()


def proposed(row: Row) -> str | None:
    """Returns the label that the page proposes for a row.

    The label of the data set is preferred: it differs from the network's label if the data set renames the class.
    """
    return row["label"] or row["model_label"] or None


def quick_labels(here: Counter[str], labels: Counter[str]) -> list[str]:
    """Returns the labels that get a digit key: the most frequent ones on the page, then those in the data set."""
    names = [name for name, _ in (*here.most_common(), *labels.most_common())]
    return list(dict.fromkeys(names))[:_NUM_QUICK]


def render(
    output: str,
    decision: str,
    rows: Sequence[Row],
    found: Mapping[str, bytes | str],
    labels: Counter[str],
    num_all: int,
) -> str:
    """Returns the page as HTML.

    Args:
        output: URI of the folder that contains the data set.
        decision: Decision of the rows.
        rows: Rows that the page shows.
        found: For each image id a JPEG, or the reason why there is none.
        labels: Count of each label in the data set.
        num_all: Number of rows that have the decision, shown or not.
    """
    # Names of images are untrusted: Jinja escapes text and attributes, and `tojson` escapes the data for the script.
    environment = Environment(
        loader=FileSystemLoader([HERE, HERE.parent / "pipeline" / "page" / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sha256": _sha256, "data_uri": _data_uri}
    here = Counter(label for label in map(proposed, rows) if label)
    quick = quick_labels(here, labels)
    return environment.get_template("review.html").render(
        output=shown(output),
        overrides=shown(join_uri(output, "overrides")),
        decision=decision,
        rows=[_card(row, found[row["image_id"]]) for row in rows],
        num_all=num_all,
        labels=sorted({*labels, *here}),
        quick=quick,
        filters=sorted(here.items()),
        sheet={
            "output": output,
            "quick": quick,
            "rows": [{"id": row["image_id"], "etag": row["source_etag"], "label": proposed(row)} for row in rows],
        },
    )


def _card(row: Row, picture: bytes | str) -> Row:
    reason = row["reason"] or row["error_code"] or ""
    return {**row, "picture": picture, "proposed": proposed(row), "why": _REASONS.get(reason, reason)}


def _sha256(text: str) -> str:
    """Returns the digest of a script or a style, by which the content security policy of the page allows it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def shard_rules(output: StorePath) -> ShardRules:
    """Returns the settings by which the job of this output read its shards."""
    records: Any = stored_setting(output, "records") or {}
    globs = {name: tuple(records.get(name, ())) for name in ("include", "include_also", "exclude")}
    names = NameFilter(**globs, rules=rules_of(output))
    return ShardRules(names=names, image_column=records.get("image_column"))


def main() -> None:
    """Reads the flags and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", metavar="OUTPUT", help="the --output of label_dataset: path, s3://, gs:// or az://")
    parser.add_argument("--html", type=Path, default=Path("review.html"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--decision", choices=DECISIONS, default="review", help="which rows; default: %(default)s")
    parser.add_argument("--limit", type=int, default=500, metavar="N", help="rows at most; default: %(default)s")
    parser.add_argument("--order", choices=tuple(_ORDERS), default="score", help="default: the least certain first")
    parser.add_argument("--output-profile", metavar="NAME", help="AWS profile for the output")
    parser.add_argument("--output-endpoint-url", metavar="URL", help="S3 endpoint for the output")
    parser.add_argument("--input-profile", metavar="NAME", help="AWS profile for the images")
    parser.add_argument("--input-endpoint-url", metavar="URL", help="S3 endpoint for the images")
    flags = parser.parse_args()
    if flags.limit < 1:
        parser.error("--limit must be at least 1")
    try:
        store = StoreConfig(profile=flags.output_profile, endpoint_url=flags.output_endpoint_url)
        output = StorePath(canonical_uri(flags.output), store)
        inputs = StoreConfig(profile=flags.input_profile, endpoint_url=flags.input_endpoint_url)
        all_rows, labels = read_rows(labels_file(output), flags.decision)
        rows = first_rows(all_rows, flags.order, flags.limit)
        found = pictures(rows, inputs, shard_rules(output))
        page = render(output.uri, flags.decision, rows, found, labels, all_rows.num_rows)
        flags.html.write_text(page, encoding="utf-8")
    except (PipelineError, StoreError, OSError, pa.ArrowException) as error:
        sys.exit(f"error: {error}")
    missing = sum(isinstance(picture, str) for picture in found.values())
    print(f"{len(rows):,} of {all_rows.num_rows:,} rows, {missing:,} without a picture, in {flags.html}")


if __name__ == "__main__":
    main()
