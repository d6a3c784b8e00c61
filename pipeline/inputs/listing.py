"""Lists the inputs: every selected object once, with its format. Objects that are not selected are counted."""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.chunks.passed_over import NO_ENDING, add_up
from pipeline.errors import ConfigError, InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FORMATS, LOOSE_FILES, PARQUET, TAR
from pipeline.inputs.left_out import how_to_include, unknown_endings
from pipeline.inputs.names import NameFilter
from pipeline.inputs.record import class_folder
from pipeline.inputs.rules import FIRST_RULES
from pipeline.store.errors import DeniedError, NotFoundError, StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath
from pipeline.store.uris import is_inside, name_of

Lister = Callable[..., Iterator[ObjectInfo]]

# Largest number of objects of an input whose endings are counted, for the message about an input without images.
_MAX_ENDINGS = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    """One listed object that the settings of the inputs select: a shard or a loose image.

    Attributes:
        info: URI, size and ETag.
        root: the first input under which the object lies.
        name: path of the object below `root`.
        format: name of the object's format, or `LOOSE_FILES`.
        true_label: name of the folder that a loose image lies in, which is the image's label in the layout of
            ImageFolder; None for shards, and for images that lie in no folder below the input.
    """

    info: ObjectInfo
    root: str
    name: str
    format: str
    true_label: str | None

    @property
    def is_loose(self) -> bool:
        """True for an image that is an object by itself."""
        return self.format == LOOSE_FILES


class Survey:
    """All selected objects of the inputs, each once, in the order of their URIs.

    Iterating over a survey lists the objects without holding them in memory. The counts are complete when the last
    object has been taken.

    Args:
        config: settings of the inputs.
        output: canonical URI of the output.
        list_objects: function that lists one input, as `StorePath.list` does.

    Attributes:
        ignored: number of listed names that are not selected.
        passed_over: number of these names by ending, see `NameFilter.ending_left_out`.
        only_shards: inputs of which every selected object is a shard, and no object lies in an earlier input too.

    Raises:
        ConfigError: the output lies inside an input, so that a run would read its own rows.
        InputError: an input is missing or empty, or none of its objects is selected. The error is raised while the
            survey is iterated.
    """

    def __init__(self, config: InputConfig, output: str, list_objects: Lister = StorePath.list) -> None:
        for root in config.uris:
            if is_inside(output, root):
                raise ConfigError(f"the output {output} lies inside the input {root}; choose another --output")
        self._config = config
        self._list_objects = list_objects
        self._skipped: set[str] = set()
        self._passed_over = 0
        self._counts = [_Counts(root) for root in config.uris]
        self.only_shards: tuple[str, ...] = ()

    @property
    def ignored(self) -> int:
        """Number of names that are not selected: objects that are passed over, and names that no URI can address."""
        return self._passed_over + len(self._skipped)

    @property
    def passed_over(self) -> dict[str, int]:
        """Number of names that are not selected, by ending; without hidden names, markers and sidecars."""
        return add_up(count.left_out for count in self._counts)

    def __iter__(self) -> Iterator[Found]:
        counts = self._counts
        streams = [self._one_root(index, count) for index, count in enumerate(counts)]
        merged = heapq.merge(*streams, key=lambda entry: entry[0].uri)
        yield from self._without_sidecars(self._classified(merged, counts))
        self.only_shards = tuple(
            each.root for each in counts if each.taken and not each.loose and each.new == each.listed
        )
        for count in counts:
            if not count.taken and count.new == count.listed:
                raise InputError(_nothing_taken(count, self._config))

    def _one_root(self, index: int, count: "_Counts") -> Iterator[tuple[ObjectInfo, int]]:
        """Yields the objects of one input, each with the input's index; collects names that no URI can address."""
        root = count.root
        try:
            every_key = self._config.names.rules != FIRST_RULES
            listed = self._list_objects(self._config.place(root), on_skipped=self._skipped.add, every_key=every_key)
            for info in listed:
                count.listed += 1
                yield info, index
        except NotFoundError as error:
            raise InputError(f"input {root}: {error}") from error
        except DeniedError as error:
            raise InputError(
                f"input {root} may not be listed: {error}; check the credentials or the profile"
            ) from error
        except StoreError as error:
            raise InputError(f"input {root} cannot be listed: {error}") from error
        if not count.listed:
            raise InputError(f"input {root}: nothing is there; check the spelling, the endpoint and the profile")

    def _classified(self, merged: Iterable[tuple[ObjectInfo, int]], counts: Sequence["_Counts"]) -> Iterator[Found]:
        """Yields the selected objects; an object under several inputs belongs to the first of these inputs."""
        last_uri = None
        for info, index in merged:
            if info.uri == last_uri:
                continue
            last_uri = info.uri
            count = counts[index]
            count.new += 1
            found = _classify(info, count.root, self._config)
            if found is None:
                self._passed_over += 1
                count.note_ending(info.uri, self._config.names)
            else:
                count.taken += 1
                count.loose += found.is_loose
                yield found

    def _without_sidecars(self, listed: Iterable[Found]) -> Iterator[Found]:
        """Yields the objects except Parquet files beside a tar of the same name, in which img2dataset keeps metadata.

        `x.parquet` is listed before `x.tar`, with few objects in between. So `x.parquet` waits until the listing is
        past `x.tar`.
        """
        waiting: deque[Found] = deque()
        for found in listed:
            while waiting and (waiting[0].format != PARQUET.name or _tar_of(waiting[0]) < found.info.uri):
                yield waiting.popleft()
            if found.format == TAR.name:
                kept = [other for other in waiting if other.format != PARQUET.name or _tar_of(other) != found.info.uri]
                self._passed_over += len(waiting) - len(kept)
                waiting = deque(kept)
            if found.format == PARQUET.name or waiting:
                waiting.append(found)
            else:
                yield found
        yield from waiting


def _tar_of(parquet: Found) -> str:
    return parquet.info.uri.removesuffix(".parquet") + ".tar"


@dataclass(slots=True)
class _Counts:
    """Counts of one input.

    Attributes:
        listed: number of objects below the input.
        new: number of listed objects that no earlier input has.
        taken: number of new objects that are selected.
        loose: number of new objects that are selected as loose images.
        endings: number of new objects that are not selected, by the ending of their names.
        left_out: number of new objects that are not selected, see `NameFilter.ending_left_out`.
    """

    root: str
    listed: int = 0
    new: int = 0
    taken: int = 0
    loose: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def note_ending(self, uri: str, names: NameFilter) -> None:
        """Counts the ending of a name that is not selected; `endings` has the first `_MAX_ENDINGS` names alone."""
        if self.new < _MAX_ENDINGS:
            self.endings[PurePosixPath(uri).suffix or NO_ENDING] += 1
        ending = names.ending_left_out(_name_below(uri, self.root))
        if ending is not None:
            self.left_out[ending] += 1
            if len(self.left_out) > _MAX_ENDINGS:
                self.left_out = Counter(add_up([self.left_out]))


def _name_below(uri: str, root: str) -> str:
    """Returns the path of an object below its input; the object's own name if the object is the input."""
    return name_of(uri) if uri == root else uri[len(root) :].lstrip("/")


def _classify(info: ObjectInfo, root: str, config: InputConfig) -> Found | None:
    """Returns an object with its format; None if the object is not selected."""
    name = _name_below(info.uri, root)
    names = config.names
    # An object that is itself an input has the format that the user names. Below a folder, the ending decides.
    named_as = config.format if info.uri == root else "auto"
    for entry in FORMATS.values():
        if config.format in ("auto", entry.name) and (entry.takes(name) or named_as == entry.name):
            return Found(info, root, name, entry.name, None) if names.takes_shard(name) else None
    if config.format in ("auto", LOOSE_FILES) and names.takes_image(name):
        last_part = name.rpartition("/")[0].rpartition("/")[2] or None
        label = last_part if names.rules == FIRST_RULES else class_folder(name)
        return Found(info, root, name, LOOSE_FILES, label)
    return None


def _nothing_taken(count: _Counts, config: InputConfig) -> str:
    listed = ", ".join(f"{number} x {ending}" for ending, number in count.endings.most_common(5))
    unknown = unknown_endings(count.left_out, config.names.rules)
    return (
        f"input {count.root}: none of its {count.listed} objects is an image or a shard under "
        f"--input-format {config.format} (endings there: {listed}); see --include and --input-format"
        f"{f'. {how_to_include(unknown)}' if unknown else ''}"
    )
