"""Names of classes in the files that Hugging Face's data sets keep beside their shards.

`dataset_infos.json` has one entry for each configuration of a data set, and `dataset_info.json` is one such entry. Each
entry lists the features of the data set; a `ClassLabel` has the names of its classes.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.store.errors import DeniedError, NotFoundError, UnaddressableError
from pipeline.store.store_path import StorePath

_MAX_BYTES = 16 * 2**20


def names_beside(shard: StorePath) -> Callable[[str], tuple[str, ...]]:
    """Returns a function that gives the names of the classes of a column of a shard; no names if none are known.

    The files are looked for in the folder of the shard, then in the folder above it, since data sets keep their shards
    in `data/`. The first file that can be read decides. A file that may not be read counts as missing. If the
    configurations in it name different classes for the column, there are no names.

    Raises:
        StoreError: the function raises this error if the store did not answer.
    """

    def names(column: str) -> tuple[str, ...]:
        for place in _places(shard):
            content = _content(place)
            if content is not None:
                return _names_in(content, column)
        return ()

    return names


def feature_names(features: Any, column: str) -> tuple[str, ...]:
    """Returns the names of the classes of a column by the features of a data set; no names without a `ClassLabel`."""
    try:
        names = features[column]["names"] if features[column]["_type"] == "ClassLabel" else ()
    except (KeyError, TypeError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _places(shard: StorePath) -> Iterator[StorePath]:
    scheme, _, path = shard.uri.partition("://")
    folder = path
    for _ in range(2):
        folder = folder.rpartition("/")[0]
        if folder:
            for name in ("dataset_infos.json", "dataset_info.json"):
                yield shard.at(f"{scheme}://{folder}/{name}")


def _content(place: StorePath) -> bytes | None:
    try:
        info = place.head()
        return place.read(info.etag) if info is not None and info.size <= _MAX_BYTES else None
    except (NotFoundError, DeniedError, UnaddressableError):
        return None


def _names_in(content: bytes, column: str) -> tuple[str, ...]:
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(stored, dict):
        return ()
    entries = [stored] if "features" in stored else stored.values()
    found = {feature_names(entry.get("features"), column) for entry in entries if isinstance(entry, dict)} - {()}
    return found.pop() if len(found) == 1 else ()
