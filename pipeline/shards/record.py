"""What every shard reader yields: one record an image, in an order that depends on the shard's bytes alone."""

from dataclasses import dataclass

from pipeline.errors import Failure


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a shard, still encoded, or the reason why it could not be read.

    Attributes:
        key: tar: member name; Parquet: row number; loose file: path below the input. None: the record stands for the
            rest of a shard that broke off.
        data: the encoded image; None where `failure` says why there is none.
        true_label: the label that came with the image, as text.
        kept: the source columns asked for by `--keep-columns`, in that order, as text (JSON where nested).
        failure: set when the record could not be read.
        ignored: members passed over since the record before (hidden files, markers, unmatched names).
    """

    key: str | None
    data: bytes | None
    true_label: str | None = None
    kept: tuple[str | None, ...] = ()
    failure: Failure | None = None
    ignored: int = 0
