"""Whatever happens to inputs and runs, one run that ends leaves exactly one row for each record that is there.

Runs are simulated without Ray (see `simulated.py`); planning, reading, collecting, publication and close are the real
ones. Runs die at any PUT, and runs that were overtaken go on to write everything that they had planned.
"""

import io
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.config.job_config import BoundsConfig
from pipeline.errors import InputError
from tests.support.simulated import KilledError, SimulatedRun, published_rows, run_once

# `make soak` asks for more.
EXAMPLES = int(os.environ.get("EXAMPLES", "10"))
LOOSE = [f"{name}.png" for name in "abcdefg"]
TARS = ["s.tar", "t.tar"]

changes = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(LOOSE), st.integers(1, 9)),
    st.tuples(st.just("remove"), st.sampled_from([*LOOSE, *TARS])),
    st.tuples(st.just("put tar"), st.sampled_from(TARS), st.lists(st.integers(1, 9), min_size=0, max_size=8)),
)
runs = st.one_of(
    st.tuples(st.just("run"), st.booleans()),
    st.tuples(st.just("bounded run"), st.integers(1, 9), st.booleans()),
    st.tuples(st.just("killed run"), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("run that stops for long"), st.integers(0, 4)),
    st.tuples(st.just("goes on")),
)


class Nights:
    """An input, an output, and the runs over them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.output = folder / "in", folder / "out"
        self.source.mkdir()
        self.number = 0
        self.stopped: list[SimulatedRun] = []
        self.version = 0

    def put(self, name: str, size: int) -> None:
        """A loose file; no two versions have the same length."""
        self.version += 1
        (self.source / name).write_bytes(b"x" * (size + 10 * self.version))

    def put_tar(self, name: str, sizes: list[int]) -> None:
        """A tar of so many images."""
        self.version += 1
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for index, size in enumerate(sizes):
                info = tarfile.TarInfo(f"{index}.png")
                info.size = size + 10 * self.version
                tar.addfile(info, io.BytesIO(b"x" * info.size))
        (self.source / name).write_bytes(body.getvalue())

    def remove(self, name: str) -> None:
        """A file that is there or not."""
        (self.source / name).unlink(missing_ok=True)

    def start(self, **options: bool) -> SimulatedRun:
        """A run that has made its plan."""
        self.number += 1
        run = SimulatedRun(self.source, self.output, self.number, **options)
        run.begin()
        return run

    def killed_run(self, puts: int, prune: bool) -> SimulatedRun:
        """A run that dies before its PUT number `puts`."""
        run = self.start(prune=prune)
        left = [puts]

        def may_publish() -> None:
            if not left[0]:
                raise KilledError
            left[0] -= 1

        with suppress(KilledError):
            run.work(may_publish)
        return run

    def bounded_run(self, max_images: int, prune: bool = False) -> bool:
        """A whole run over a part of the work; returns whether something is left."""
        self.number += 1
        bounds = BoundsConfig(max_images=max_images)
        report = run_once(self.source, self.output, self.number, bounds=bounds, prune=prune)
        assert (report.status, report.problems) in (("done", ()), ("stopped", ()))
        if report.status == "stopped":
            assert str(report.reason).startswith(f"bounded by --max-images {max_images}: ")
            assert report.run.listed >= max_images
        return report.status == "stopped"

    def present(self) -> Counter:
        """(name, length) of each record that is there."""
        found: Counter = Counter()
        for path in self.source.iterdir():
            if path.suffix == ".png":
                found[path.name, path.stat().st_size] += 1
            else:
                with tarfile.open(path) as tar:
                    found.update((f"{path.name}#{member.name}", member.size) for member in tar)
        return found

    def rows(self) -> Counter:
        """(name, length) of each row."""
        return Counter(
            (row["image_id"].rpartition("/")[2], row["encoded_bytes"]) for row in published_rows(self.output)
        )


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(changes, runs), max_size=14), st.booleans())
@example([("put tar", "s.tar", [1] * 8), ("run that stops for long", 1), ("put tar", "s.tar", [1]), ("run", False), ("goes on",)], False)  # fmt: skip  # noqa: E501
@example([("put", "a.png", 1), ("run that stops for long", 0), ("put", "a.png", 2), ("run", False), ("goes on",)], True)
def test_one_run_that_ends_leaves_one_row_for_each_record(events, prune):
    folder = Path(tempfile.mkdtemp())
    try:
        nights = Nights(folder)
        nights.put("z.png", 1)
        for what, *details in events:
            if what == "put":
                nights.put(*details)
            elif what == "put tar":
                nights.put_tar(*details)
            elif what == "remove":
                nights.remove(*details)
            elif what == "run":
                nights.number += 1
                report = run_once(nights.source, nights.output, nights.number, prune=details[0])
                assert (report.status, report.problems) == ("done", ())
            elif what == "bounded run":
                nights.bounded_run(*details)
            elif what == "killed run":
                nights.killed_run(*details)
            elif what == "run that stops for long":
                nights.stopped.append(nights.killed_run(details[0], False))
            else:
                for run in nights.stopped:
                    with suppress(InputError):
                        run.work()
        nights.number += 1
        report = run_once(nights.source, nights.output, nights.number, prune=prune)
        assert (report.status, report.problems) == ("done", ())
        present, rows = nights.present(), nights.rows()
        if prune:
            assert rows == present
        else:
            assert not present - rows
            # What is there besides is gone from the input.
            assert {name for name, _ in rows - present}.isdisjoint(name for name, _ in present)
            assert max(Counter(name for name, _ in rows.elements()).values()) == 1
        # And the next run has nothing to do.
        nights.number += 1
        assert SimulatedRun(nights.source, nights.output, nights.number, prune=prune).run.plan.is_empty
    finally:
        shutil.rmtree(folder)


def test_bounded_runs_reach_what_one_run_does(tmp_path):
    """Three images a night, or the tar that ends one; what changed has its old rows until it is read."""
    nights = Nights(tmp_path)
    for name in LOOSE:
        nights.put(name, 1)
    for name in TARS:
        nights.put_tar(name, [1] * 5)
    while nights.bounded_run(3):
        pass
    # a to c; d to f; g and s; t.
    assert nights.number == 4
    assert nights.rows() == nights.present()

    nights.put("0.png", 5)
    nights.put("a.png", 5)
    for name in TARS:
        nights.put_tar(name, [3] * 4)
    before, present = nights.rows(), nights.present()
    assert nights.bounded_run(3)
    t_rows = {entry: count for entry, count in before.items() if entry[0].startswith("t.tar")}
    expected = Counter({entry: 1 for entry in present if not entry[0].startswith("t.tar")} | t_rows)
    assert nights.rows() == expected
    assert not nights.bounded_run(3)
    assert nights.rows() == nights.present()
