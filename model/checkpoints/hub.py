"""Reads checkpoints from the Hugging Face Hub, through the Hub's own library and cache.

The environment variables of the Hub's library apply: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE`.
"""

import re
from pathlib import Path

from model.checkpoints.files import (
    CONFIG_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_ENDINGS,
    WEIGHTS_FILE,
    CheckpointFiles,
    read_folder,
)
from model.errors import CheckpointError

_SOURCE = re.compile(r"hf://(?P<repo>[^/@\s]+/[^/@\s]+)(@(?P<revision>\S+))?")


def is_hub(source: str) -> bool:
    """Returns whether a source names a model on the Hub: the source then begins with `hf://`."""
    return source.startswith("hf://")


def parse_hub_source(source: str) -> tuple[str, str | None]:
    """Returns `org/name` and the revision (branch, tag or commit, or None) of `hf://org/name[@revision]`.

    Raises:
        CheckpointError: The source does not have this form.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise CheckpointError(f"{source}: a checkpoint on the Hub is written hf://org/name or hf://org/name@revision.")
    return match["repo"], match["revision"]


def read_hub(source: str) -> CheckpointFiles:
    """Reads the files of a checkpoint on the Hub; files are downloaded once, and then read from the cache.

    Args:
        source: `hf://org/name[@revision]`; without a revision, the head of the main branch is read.

    Raises:
        CheckpointError: The Hub does not have the model or does not give access to it, or the Hub cannot be reached and
            the model is not in the cache.
    """
    # Importing the library takes a third of a second, which other sources need not spend.
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, revision = parse_hub_source(source)
    try:
        folder = _snapshot(repo, revision, [CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE])
        if not (folder / WEIGHTS_FILE).is_file():
            folder = _snapshot(
                repo, revision, [CONFIG_FILE, PREPROCESSOR_FILE, *(f"*{end}" for end in WEIGHTS_ENDINGS)]
            )
    except GatedRepoError as error:
        raise CheckpointError(
            f"{source}: its owner gives it on request only; ask on its page, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{source}: the Hub has no such model, or it is private and HF_TOKEN is not set."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{source}: the model has no revision {revision!r}.") from error
    except HFValidationError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{source}: the Hub cannot be reached, or HF_HUB_OFFLINE is set, and the model is not in the cache; run "
            "once with a network, or give a local folder."
        ) from error
    except Exception as error:  # also errors of the HTTP library that the Hub's library uses
        what = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{source}: the Hub did not give it: {type(error).__name__}: {what}") from error
    # The name of the folder in the cache is the commit, also if a branch or tag was asked for.
    return read_folder(folder, name=f"hf://{repo}@{folder.name}", revision=f"{repo}@{folder.name}")


def _snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
