"""An output whose files a test publishes as it likes, and the data set beside it."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.dataset.dataset_file import labels_file
from pipeline.dataset.overrides import PLACES
from pipeline.dataset.update import DatasetConfig, Update, update_dataset
from pipeline.output.layout import DATA, RUNS
from pipeline.output.published import PublishedFile
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri

MODEL_LABELS = ("cat", "dog", "teapot")
STORE = StoreConfig()


def row(
    shard: str, number: int, label: str | None, score: float = 0.9, etag: str = "e1", **more: Any
) -> dict[str, Any]:
    """A row of an output; without a label it is a failed one. A shard `files:...` holds loose images."""
    is_loose = shard.startswith("files:")
    key = more.pop("key", f"{number}.png")
    return {
        "image_id": f"s3://in/{key}" if is_loose else f"{shard}#{key}", "shard": shard, "key": key, "row": number,
        "source_etag": etag, "status": "failed" if label is None else "ok",
        "error_code": "decode.corrupt" if label is None else None, "width": 40, "height": 30,
        "label_id": None if label is None else MODEL_LABELS.index(label), "label": label,
        "score": None if label is None else score, **more,
    }  # fmt: skip


@dataclass
class World:
    """An output."""

    output: str
    files: dict[str, PublishedFile] = field(default_factory=dict)
    runs: int = 0

    def publish(
        self, hash16: str, rows: Iterable[dict[str, Any]], *, shard: str, etag: str = "e1", slice_number: int = 0,
        end: bool = True, emptied: bool = False,
    ) -> None:  # fmt: skip
        """One output file, in the place of the one that had its name."""
        table = pa.Table.from_pylist(list(rows), schema=output_schema(CLASSIFY_COLUMNS, ()))
        body = io.BytesIO()
        pq.write_table(table, body)
        name = f"x-{hash16}-{slice_number:05d}{'-end' if end else ''}.parquet"
        written = StorePath(self.output, STORE).join(DATA, name).put(body.getvalue())
        self.files[name] = PublishedFile(
            file=name, etag=written, shard=shard, hash16=hash16, slice=slice_number, end=end, source_etag=etag,
            rows=len(table), ok=0, failed=0, first_row=0, last_row=len(table) - 1, pruned=(), emptied=emptied,
            identity="", run_id="", footer_json="{}",
        )  # fmt: skip

    def update(self, check_right=lambda: None, run_id: str | None = None, **config: Any) -> Update:
        """One update, as the next run."""
        self.runs += 1
        settings = DatasetConfig(**config)
        run = run_id or f"run-{self.runs}"
        return update_dataset(
            StorePath(self.output, STORE), list(self.files.values()), MODEL_LABELS, settings, run, check_right
        )

    def labels(self) -> dict[str, dict[str, Any]]:
        """The data set by the last part of its image ids."""
        table = pq.read_table(pa.BufferReader(labels_file(StorePath(self.output, STORE)).read()))
        return {entry["image_id"].rpartition("/")[2]: entry for entry in table.to_pylist()}

    def changes(self, run_id: str) -> list[dict[str, Any]]:
        """The change log of a run."""
        return pq.read_table(
            pa.BufferReader(StorePath(self._in_run(run_id, "changes.parquet"), STORE).read())
        ).to_pylist()

    def change_summary(self, run_id: str) -> dict[str, Any]:
        """Its sums."""
        return json.loads(StorePath(self._in_run(run_id, "changes.json"), STORE).read())

    def override(self, text: str, place: str = PLACES[0]) -> None:
        """Puts a file of corrections into the output."""
        StorePath(self.output, STORE).join(place).put(text.encode())

    def _in_run(self, run_id: str, name: str) -> str:
        return join_uri(self.output, RUNS, run_id, name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An output without files."""
    return World(canonical_uri(str(tmp_path / "out")))


@pytest.fixture
def labelled(world: World) -> World:
    """An output with two loose images, and a tar of two."""
    world.publish("a" * 16, [row("files:a", 0, "cat"), row("files:a", 1, "dog", 0.4)], shard="files:a")
    tar = "s3://in/t.tar"
    world.publish("b" * 16, [row(tar, 0, "teapot", key="t0.png"), row(tar, 1, None, key="t1.png")], shard=tar)
    return world


def without(world: World, name: str) -> World:
    """The same output without the files of a shard, by its hash."""
    return replace(world, files={file: entry for file, entry in world.files.items() if entry.hash16 != name})
