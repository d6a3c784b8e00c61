"""Reads the files of a checkpoint from a local folder or file, from S3, or from the Hugging Face Hub."""

from pathlib import Path

from model.checkpoints.files import CheckpointFiles, gather_files, is_weights_file, read_folder, unknown_ending
from model.checkpoints.hub import is_hub, read_hub
from model.errors import CheckpointError


def read_files(source: str | Path) -> CheckpointFiles:
    """Reads the files of the checkpoint at a local path, an `s3://` URI, or `hf://org/name[@revision]`.

    Raises:
        CheckpointError: A file is missing or cannot be read.
    """
    text = str(source)
    if is_hub(text):
        return read_hub(text)
    if text.startswith("s3://"):
        return _read_s3(text)
    if "://" in text:
        raise CheckpointError(f"{text}: checkpoints are read from a local path, s3:// or hf://.")
    return read_folder(Path(text)) if Path(text).is_dir() else _read_file(Path(text))


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
    # The package `model` reads S3 by itself, since it is also used without the pipeline and must not import the
    # pipeline's store. Jobs read weights through that store, and hand the bytes to `parse_checkpoint`. boto3 is
    # imported only here, since its import takes a while.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client = boto3.client("s3")

    def is_there() -> bool:
        found = client.list_objects_v2(Bucket=bucket, Prefix=key.rstrip("/"), MaxKeys=1).get("Contents", [])
        return [item["Key"] for item in found] == [key.rstrip("/")]

    def read(name: str) -> bytes | None:
        try:
            return client.get_object(Bucket=bucket, Key=prefix + name)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None

    def names() -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        found = [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]
        if not found and is_there():
            raise unknown_ending(uri)
        return found

    try:
        folder, _, weights_name = key.rpartition("/") if is_weights_file(key, is_there) else (key, "", None)
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        return gather_files(f"s3://{bucket}/{prefix}".rstrip("/"), read, names, weights_name=weights_name)
    except (BotoCoreError, ClientError) as error:
        raise CheckpointError(f"{uri} cannot be read: {error}") from error
    finally:
        client.close()
