"""A torch `Dataset` over the rows that `jobs/extract_features.py` wrote: image ids with embeddings or maps.

    dataset = FeatureDataset("features", "stage4")
    image_id, map_CHW = dataset[0]

Parquet is decoded one row group (some 16 MiB) at a time, and the tensors are views of the decoded row group. A
`DataLoader` without shuffling reads the rows in order, so that every row group is decoded once.
"""

import bisect
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset


class FeatureDataset(Dataset[tuple[str, torch.Tensor]]):
    """The successful rows of an output; each item is (image id, features)."""

    def __init__(self, output: str | Path, column: str = "embedding") -> None:
        """Reads the status of all rows, but no features.

        Args:
            output: Local folder that the job wrote to.
            column: `embedding`, or one of `stage1` to `stage4` if the job stored maps.
        """
        self._column = column
        self._groups: list[tuple[Path, int, pa.Array]] = []
        self._ends: list[int] = []
        for path in sorted(Path(output, "data").glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    status = file.read_row_group(group, columns=["status"]).column("status").combine_chunks()
                    rows = pc.indices_nonzero(pc.equal(status, "ok"))
                    self._groups.append((path, group, rows))
                    self._ends.append(len(self) + len(rows))
        self._loaded = -1
        self._ids: Sequence[str] = ()
        self._features: list[torch.Tensor] = []

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        """Returns (image id, embedding C or map CHW); the tensor must not be modified."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        group = bisect.bisect_right(self._ends, index)
        if group != self._loaded:
            self._load(group)
        place = index - (self._ends[group - 1] if group else 0)
        return self._ids[place], self._features[place]

    def _load(self, number: int) -> None:
        path, group, rows = self._groups[number]
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(group, columns=["image_id", self._column])
        self._ids = table.column("image_id").take(rows).to_pylist()
        self._features = [_tensor(self._value(table, row.as_py())) for row in rows]
        self._loaded = number

    def _value(self, table: pa.Table, row: int) -> np.ndarray:
        value = table.column(self._column)[row]
        if self._column == "embedding":
            return value.values.to_numpy(zero_copy_only=True)
        shape = tuple(value["shape"].as_py())
        return value["data"].values.to_numpy(zero_copy_only=True).reshape(shape)


def _tensor(values: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)
