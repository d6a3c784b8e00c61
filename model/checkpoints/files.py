"""The files of one checkpoint folder: which files are read, and the errors for missing files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
# Endings of the names of weights files. A training script often leaves files with one of the last two beside the
# weights, so a folder's own weights are looked for under the first four.
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
_TRAINING_STATES = (".ckpt", ".pth.tar")
WEIGHTS_ENDINGS = _WEIGHTS + _TRAINING_STATES

# The names of weights files in transformers and timm, the safer format first.
_USUAL = (WEIGHTS_FILE, "pytorch_model.bin")
# Beginnings of the names of a training script's other files, which may have the endings of weights files.
_NO_WEIGHTS = ("optimizer", "scheduler", "training_args", "rng_state", "scaler")


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The contents of a checkpoint's files.

    Attributes:
        weights: Bytes of the weights file: safetensors, or a file of `torch.save`.
        config_json: Text of `config.json`; None if there is no such file.
        preprocessor_json: Text of `preprocessor_config.json`; None if there is no such file.
        revision: `org/name@commit` of files from the Hub; None for other files.
    """

    weights: bytes
    config_json: str | None
    preprocessor_json: str | None
    revision: str | None = None


def read_folder(folder: Path, name: str | None = None, revision: str | None = None) -> CheckpointFiles:
    """Reads the files of a checkpoint in a local folder.

    Args:
        folder: Path of the folder.
        name: Name of the folder in error messages; by default its path.
        revision: See `CheckpointFiles`.
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


def is_weights_file(name: str, is_there: Callable[[], bool]) -> bool:
    """Returns whether a name is that of a weights file, by its ending in letters of any case.

    Args:
        name: Name of a file or of a folder.
        is_there: Function that returns whether there is a file of this name. The function is called only for the
            endings of training states, which some programs give to folders.
    """
    name = name.lower()
    return name.endswith(_WEIGHTS) or (name.endswith(_TRAINING_STATES) and is_there())


def unknown_ending(file: str) -> CheckpointError:
    """Returns the error for a file of weights whose name says nothing of its format."""
    return CheckpointError(
        f"{file} is a file whose ending is not known: weights files end with {', '.join(WEIGHTS_ENDINGS)}. Rename it, "
        "or give a folder with a checkpoint."
    )


def gather_files(
    folder: str,
    read: Callable[[str], bytes | None],
    names: Callable[[], Sequence[str]],
    *,
    weights_name: str | None = None,
    revision: str | None = None,
) -> CheckpointFiles:
    """Reads the files of a checkpoint in any kind of folder.

    Args:
        folder: Name of the folder in error messages.
        read: Function that returns the content of the file with a name, or None if there is no such file.
        names: Function that returns the names of all files in the folder; called only if no weights file has a usual
            name.
        weights_name: Name of the weights file; by default the folder is searched for a weights file.
        revision: Revision of the files; see `CheckpointFiles`.

    Raises:
        CheckpointError: There is no weights file, there are several, or a JSON file is not UTF-8 text.
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
    """Returns the name of the only file that can hold weights; no such file, or several, are an error."""
    found: list[str] = []
    for endings in (_WEIGHTS, _TRAINING_STATES):
        found = found or [n for n in names if n.lower().endswith(endings) and not n.startswith(_NO_WEIGHTS)]
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
