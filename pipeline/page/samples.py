"""The section of sample images on the page of one run: thumbnails with labels, if the run made thumbnails."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from pipeline.page.parts import Cell, Figure, Section, Table, Thumbnail, at, figure, mapping, sequence, text

_NOTE = "Images of this run, drawn by a hash of their ids from those that did not fail, as the network saw them."
_SHORT = 22


def samples_section(report: Mapping[str, Any]) -> Section | None:
    """Returns the section of thumbnails with labels and scores, and of a table of the same images."""
    thumbnails, rows = list[Thumbnail](), list[list[Cell]]()
    for index, entry in enumerate(map(mapping, sequence(at(report, "samples")))):
        uri = _uri(at(entry, "thumbnail"))
        if uri is None:
            continue
        id, shard = text(at(entry, "image_id")), text(at(entry, "shard"))
        label = None if at(entry, "label") is None else text(at(entry, "label"))
        score = figure(entry, "score", "share", prefix=f"samples.{index}.")
        alt = id if label is None else f"{label}: {id}"
        thumbnails.append(Thumbnail(uri=uri, alt=alt, label=label, score=score, name=_short(id)))
        sides: list[Figure] = [figure(entry, side, prefix=f"samples.{index}.") for side in ("width", "height")]
        rows.append([id, shard, "–" if label is None else label, score, *sides])
    head = ("Image", "Shard", "Label", "Score", "Width", "Height")
    table = Table(caption="Sample images as a table", head=head, rows=rows, folded=True)
    if not thumbnails:
        return None
    return Section(anchor="samples", title="Sample images", note=_NOTE, thumbnails=thumbnails, tables=[table])


def _uri(thumbnail: Any) -> str | None:
    """Returns a `data:` URI of a JPEG that is given as base64 text; None if the value is not such a text."""
    try:
        jpeg = base64.b64decode(thumbnail, validate=True) if isinstance(thumbnail, str) else b""
    except (binascii.Error, ValueError):
        return None
    if not jpeg.startswith(b"\xff\xd8\xff"):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _short(id: str) -> str:
    """Returns the last name in an image's id; a long name is shortened in its middle."""
    name = id.rpartition("/")[2].rpartition("#")[2] or id
    return name if len(name) <= _SHORT else f"{name[: _SHORT // 2 - 1]}…{name[-_SHORT // 2 :]}"
