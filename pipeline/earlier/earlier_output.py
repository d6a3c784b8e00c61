"""An output of earlier rules, and the settings by which its sources are read again."""

from dataclasses import dataclass, replace

from pipeline.config.identity import rules_of, stored_setting
from pipeline.errors import InputError, OutputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.names import NameFilter
from pipeline.inputs.rules import FIRST_RULES
from pipeline.output.published import PublishedFile, list_files, published_files
from pipeline.store.errors import StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath


@dataclass(frozen=True, kw_only=True)
class EarlierOutput:
    """An output, and which of its files were made under the first rules of reading.

    Attributes:
        output: folder of the output.
        input: the inputs, with the settings of reading that the output was made with, under the present rules.
        files: all output files with rows, or of shards without records.
        earlier: the files that were made under the first rules, in the order of shards and slices.
        infos: the listed output files by name.
        is_taken_over: True if the present rules hold for whatever is read from now on.
    """

    output: StorePath
    input: InputConfig
    files: tuple[PublishedFile, ...]
    earlier: tuple[PublishedFile, ...]
    infos: dict[str, ObjectInfo]
    is_taken_over: bool


def open_earlier(output: StorePath, source: InputConfig) -> EarlierOutput:
    """Returns an output with its files.

    Args:
        source: inputs, format and store of the sources; the output itself says how they were read.

    Raises:
        InputError: the folder holds no output of a job.
        OutputError: the output cannot be read.
    """
    records = stored_setting(output, "records")
    if not isinstance(records, dict):
        raise InputError(f"{output} holds no output of a job: give the --output of jobs/classify.py")
    try:
        infos = list_files(output)
        files = tuple(file for file in published_files(output) if not file.emptied)
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error
    is_taken_over = rules_of(output) != FIRST_RULES
    older = stored_setting(output, "taken_over") or ()
    names = NameFilter(
        include=tuple(records["include"]),
        include_also=tuple(records.get("include_also", ())),
        exclude=tuple(records["exclude"]),
    )
    return EarlierOutput(
        output=output,
        input=replace(
            source,
            names=names,
            image_column=records["image_column"],
            keep_columns=tuple(records["keep_columns"]),
            limit=records["limit"],
        ),
        files=files,
        earlier=tuple(
            sorted(
                (file for file in files if not is_taken_over or file.identity in older),
                key=lambda file: (file.shard, file.slice),
            )
        ),
        infos=infos,
        is_taken_over=is_taken_over,
    )
