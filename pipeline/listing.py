"""What the inputs hold: every object once, told apart into tar, Parquet and loose image, the rest counted."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pipeline.config import InputConfig
from pipeline.errors import ConfigError, InputError
from pipeline.names import is_parquet, is_tar
from pipeline.storage import ObjectInfo, list_objects
from pipeline.store_errors import DeniedError, NotFoundError, StoreError
from pipeline.uris import is_inside, name_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One object that takes part.

    Attributes:
        info: URI, size and ETag.
        root: the input under which it was found first.
        name: its path below that input.
        kind: how it is read.
        true_label: loose files in a folder below the input: that folder's name, as ImageFolder trees have it.
    """

    info: ObjectInfo
    root: str
    name: str
    kind: Literal["tar", "parquet", "files"]
    true_label: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """All inputs: what takes part, and how many names do not."""

    found: tuple[Found, ...]
    ignored: int


def survey_inputs(config: InputConfig, output: str) -> Survey:
    """Lists every input; an object that several inputs name is taken once.

    Raises:
        ConfigError: the output lies inside an input, so that a run would read its own rows.
        InputError: an input is missing, empty, or holds nothing that takes part.
    """
    for root in config.uris:
        if is_inside(output, root):
            raise ConfigError(f"the output {output} lies inside the input {root}; choose another --output")
    found: dict[str, Found] = {}
    seen: set[str] = set()
    skipped: set[str] = set()
    ignored = 0
    for root in config.uris:
        objects = _list(root, config, skipped)
        new = [info for info in objects if info.uri not in seen]
        seen.update(info.uri for info in new)
        taken = _without_sidecars(
            {info.uri: entry for info in new if (entry := _classify(info, root, config)) is not None}
        )
        ignored += len(new) - len(taken)
        if not taken and len(new) == len(objects):
            raise InputError(_nothing_taken(root, objects, config))
        found.update(taken)
    return Survey(tuple(found.values()), ignored + len(skipped))


def _list(root: str, config: InputConfig, skipped: set[str]) -> list[ObjectInfo]:
    """What is under an input; names that cannot be read go to `skipped`."""
    try:
        objects = list(list_objects(root, config.store, on_skipped=skipped.add))
    except NotFoundError as error:
        raise InputError(f"input {root}: {error}") from error
    except DeniedError as error:
        raise InputError(f"input {root} may not be listed: {error}; check the credentials or the profile") from error
    except StoreError as error:
        raise InputError(f"input {root} cannot be listed: {error}") from error
    if not objects:
        raise InputError(f"input {root}: nothing is there; check the spelling, the endpoint and the profile")
    return objects


def _classify(info: ObjectInfo, root: str, config: InputConfig) -> Found | None:
    """How one object is read; None if it is passed over."""
    name = name_of(info.uri) if info.uri == root else info.uri[len(root) :].lstrip("/")
    names = config.names
    # An object that the user names is what the user says it is; below a folder, endings tell.
    named_as = config.format if info.uri == root else "auto"
    if config.format in ("auto", "tar") and (is_tar(name) or named_as == "tar"):
        return Found(info, root, name, "tar", None) if names.takes_shard(name) else None
    if config.format in ("auto", "parquet") and (is_parquet(name) or named_as == "parquet"):
        return Found(info, root, name, "parquet", None) if names.takes_shard(name) else None
    if config.format in ("auto", "files") and names.takes_image(name):
        folders = PurePosixPath(name).parts[:-1]
        return Found(info, root, name, "files", folders[-1] if folders else None)
    return None


def _without_sidecars(taken: dict[str, Found]) -> dict[str, Found]:
    """Without the Parquet files that stand beside a tar of the same name, as img2dataset writes them."""
    sidecars = {uri.removesuffix(".tar") + ".parquet" for uri in taken if uri.endswith(".tar")}
    return {uri: found for uri, found in taken.items() if uri not in sidecars}


def _nothing_taken(root: str, objects: Iterable[ObjectInfo], config: InputConfig) -> str:
    endings = Counter(PurePosixPath(info.uri).suffix or "(none)" for info in objects)
    listed = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(5))
    return (
        f"input {root}: none of its {sum(endings.values())} objects is an image or a shard under "
        f"--input-format {config.format} (endings there: {listed}); see --include and --input-format"
    )
