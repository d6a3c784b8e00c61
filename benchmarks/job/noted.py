"""Steps that note when the work on each chunk began and ended, so that a run can be laid out in time afterwards."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.flow.steps import ActorStep, DecodeStep, Steps
from pipeline.infer.config import InferConfig


@dataclass(frozen=True, kw_only=True)
class Note:
    """The work on one chunk in one step.

    Attributes:
        step: `decode`, `unpack`, `compute` or `pack`.
        pid: Process that did the work.
        images: Number of images in the chunk.
        began, ended: `time.time()` at the start and at the end.
        cpu_s: CPU seconds of the thread that did the work.
    """

    step: str
    pid: int
    images: int
    began: float
    ended: float
    cpu_s: float


def noted(steps: Steps, folder: Path) -> Steps:
    """Returns steps that do the same work, and that also write notes into a folder."""
    return Steps(decode=_Decode(steps.decode, str(folder)), infer=InferActor(steps.infer, str(folder)))


def read_notes(folder: Path) -> list[Note]:
    """Returns all notes, in the order of their ends."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((Note(**json.loads(line)) for line in lines), key=lambda note: note.ended)


def _noted(folder: str, step: str, chunk: Chunk, work: Callable[[], Any]) -> Any:
    """Does the work, writes a note, and returns the result of the work."""
    note: dict[str, Any] = {"step": step, "pid": os.getpid(), "images": chunk.rows.num_rows, "began": time.time()}
    cpu_s = time.thread_time()
    result = work()
    note |= {"ended": time.time(), "cpu_s": time.thread_time() - cpu_s}
    with Path(folder, f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(note) + "\n")  # one write a line, since two threads of an actor share the file
    return result


@dataclass(frozen=True)
class _Decode:
    step: DecodeStep
    folder: str

    def __call__(self, chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
        return _noted(self.folder, "decode", chunk, lambda: self.step(chunk, sizes, careful=careful))


@dataclass(frozen=True)
class InferActor:
    make: Callable[[memoryview | bytes, InferConfig], ActorStep]
    folder: str

    def __call__(self, weights: memoryview | bytes, config: InferConfig) -> "_NotedStep":
        return _NotedStep(self.make(weights, config), self.folder)


class _NotedStep:
    """An infer step that writes notes; each of its methods hands on the chunk and the wrapped step's value."""

    def __init__(self, step: ActorStep, folder: str) -> None:
        self._step, self._folder, self.ahead = step, folder, step.ahead

    def unpack(self, chunk: Chunk) -> tuple[Chunk, Any]:
        return chunk, _noted(self._folder, "unpack", chunk, lambda: self._step.unpack(chunk))

    def submit(self, unpacked: tuple[Chunk, Any]) -> Callable[[], tuple[Chunk, Any]]:
        chunk, images = unpacked
        wait = _noted(self._folder, "compute", chunk, lambda: self._step.submit(images))
        return lambda: (chunk, wait())

    def pack(self, computed: tuple[Chunk, Any]) -> Chunk:
        chunk, answers = computed
        return _noted(self._folder, "pack", chunk, lambda: self._step.pack(answers))
