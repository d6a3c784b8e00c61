"""Loads checkpoints in another process, whose libraries read their environment anew.

The process is forked from a server that has imported torch once, since importing torch takes seconds.
"""

import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch"])


def load_in_other_process(sources: tuple[str, ...], env: Mapping[str, str], timeout_s: float = 120) -> str:
    """Returns a line for each source: labels, digest and revision of the checkpoint, or why it was refused."""
    ours, theirs = _SERVER.Pipe()
    process = _SERVER.Process(target=_load, args=(sources, dict(env), theirs))
    process.start()
    theirs.close()
    try:
        assert ours.poll(timeout_s), "the process does not answer"
        return "\n".join(ours.recv())
    finally:
        process.join(timeout_s)
        ours.close()
        process.close()


def _load(sources: tuple[str, ...], env: dict[str, str], answer: Connection) -> None:
    os.environ.clear()
    os.environ.update(env)
    # Imported here: the library of the Hub reads its environment when it is imported.
    from model.checkpoints.load import load_checkpoint
    from model.checkpoints.sources import read_files
    from model.errors import CheckpointError

    lines = []
    for source in sources:
        try:
            loaded, files = load_checkpoint(source), read_files(source)
            lines.append(f"{loaded.labels} {loaded.digest[:8]} {files.revision}")
        except CheckpointError as error:
            lines.append(f"refused: {error}")
    answer.send(lines)
