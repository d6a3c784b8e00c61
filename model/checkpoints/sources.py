"""Where the files of a checkpoint come from: a local folder or file, S3, or the Hugging Face Hub."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
# What transformers and timm call their weights, the safer format first.
_USUAL = (WEIGHTS_FILE, "pytorch_model.bin")
# Files of training scripts that have a weights file's ending and hold none.
_NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The contents of a checkpoint's files.

    Attributes:
        weights: safetensors, or what torch pickled.
        config_json, preprocessor_json: the files beside it, as text; None where there is none.
        revision: `org/name@commit` where they come from the Hub; None elsewhere.
    """

    weights: bytes
    config_json: str | None
    preprocessor_json: str | None
    revision: str | None = None


def read_files(source: str | Path) -> CheckpointFiles:
    """The files of the checkpoint at a local path, an `s3://` URI (boto3's credentials), or `hf://org/name[@revision]`.

    Raises:
        CheckpointError: they are not there, or cannot be read.
    """
    text = str(source)
    if text.startswith("hf://"):
        from model.checkpoints.hub import read_hub  # the library is loaded for these alone

        return read_hub(text)
    if text.startswith("s3://"):
        return _read_s3(text)
    if "://" in text:
        raise CheckpointError(f"{text}: checkpoints are read from a local path, s3:// or hf://.")
    return read_folder(Path(text)) if Path(text).is_dir() else _read_file(Path(text))


def read_folder(folder: Path, name: str | None = None, revision: str | None = None) -> CheckpointFiles:
    """The files of a checkpoint in a local folder.

    Args:
        name: what to call the folder in errors; its path where not given.
        revision: see `CheckpointFiles`.
    """

    def read(name: str) -> bytes | None:
        path = folder / name
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}.") from error

    def names() -> list[str]:
        return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []

    return gather_files(name or str(folder), read, names, revision=revision)


def gather_files(
    folder: str,
    read: Callable[[str], bytes | None],
    names: Callable[[], Sequence[str]],
    *,
    weights_name: str | None = None,
    revision: str | None = None,
) -> CheckpointFiles:
    """The files of a checkpoint in any kind of folder.

    Args:
        folder: what to call it in errors.
        read: name -> content, or None where there is no such file.
        names: of all files in the folder; asked only where none has a usual name.
        weights_name: of the weights file; found where not given.
        revision: see `CheckpointFiles`.

    Raises:
        CheckpointError: there are no weights, or there are several, or a text is none.
    """
    candidates = (weights_name,) if weights_name is not None else _USUAL
    weights = next((data for name in candidates if (data := read(name)) is not None), None)
    if weights is None and weights_name is None:
        weights_name = _only_weights(folder, names())
        weights = read(weights_name)
    if weights is None:
        raise CheckpointError(f"there is no {folder}/{weights_name}.")
    config_json, preprocessor_json = (_text(folder, name, read(name)) for name in (CONFIG_FILE, PREPROCESSOR_FILE))
    return CheckpointFiles(
        weights=weights, config_json=config_json, preprocessor_json=preprocessor_json, revision=revision
    )


def _only_weights(folder: str, names: Sequence[str]) -> str:
    """The one file in a folder that may be weights."""
    found = [name for name in names if name.endswith(WEIGHTS_ENDINGS) and not name.startswith(_NO_WEIGHTS)]
    if len(found) == 1:
        return found[0]
    if any(name.endswith(".index.json") for name in names):
        raise CheckpointError(
            f"{folder} holds weights in several parts, which are not read: load them with transformers, and save them "
            "again with save_pretrained(folder), which writes one safetensors file."
        )
    if found:
        raise CheckpointError(f"{folder} holds several weights files ({', '.join(found[:5])}): name one of them.")
    raise CheckpointError(
        f"there is no {folder}/{WEIGHTS_FILE}, nor another file with weights ({', '.join(WEIGHTS_ENDINGS)}). For a "
        "trial, examples/random_checkpoint.py makes a checkpoint with random weights."
    )


def _text(folder: str, name: str, data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{folder}/{name} is not UTF-8 text: {error}") from error


def _read_file(path: Path) -> CheckpointFiles:
    if not path.is_file():
        raise CheckpointError(f"there is no {path}: give a folder with a checkpoint, or a weights file.")

    def read(name: str) -> bytes | None:
        beside = path.parent / name
        return beside.read_bytes() if beside.is_file() else None

    try:
        return gather_files(str(path.parent), read, list, weights_name=path.name)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def _read_s3(uri: str) -> CheckpointFiles:
    import boto3  # loaded for these alone; jobs have a store of their own
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    weights_name = None
    if key.endswith(WEIGHTS_ENDINGS):
        key, _, weights_name = key.rpartition("/")
    prefix = f"{key.strip('/')}/" if key.strip("/") else ""
    client = boto3.client("s3")

    def read(name: str) -> bytes | None:
        try:
            return client.get_object(Bucket=bucket, Key=prefix + name)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None

    def names() -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]

    try:
        return gather_files(f"s3://{bucket}/{prefix}".rstrip("/"), read, names, weights_name=weights_name)
    except (BotoCoreError, ClientError) as error:
        raise CheckpointError(f"{uri} cannot be read: {error}") from error
    finally:
        client.close()
