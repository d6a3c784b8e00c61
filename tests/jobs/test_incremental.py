"""One output over several nights: what is new, changed, gone or failed is done, and nothing else."""

import duckdb
import pytest

from tests.support.tars import tar_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def rows(output):
    """(name, status, width) of every row, by the image's name."""
    query = f"SELECT parse_filename(image_id), status, width FROM read_parquet('{output}/data/*.parquet') ORDER BY 1"
    return duckdb.sql(query).fetchall()


def files(output):
    """Each output file with what tells whether it was written again."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "data").iterdir()}


@pytest.fixture
def night(run_here, tmp_path, tiny_weights):
    """Runs the job over `in` with some more flags; the run must be whole, unless it is to end otherwise."""

    def run(*flags, code=0):
        result = run_here(
            *("--input", tmp_path / "in", "--weights", tiny_weights, "--output", tmp_path / "out"),
            *("--rows-per-file", "4", "--max-failed-fraction", "1", *flags),
        )
        assert result.code == code, result.stderr
        return result.summary

    return run


@pytest.mark.drill
def test_an_output_follows_its_input_night_after_night(tmp_path, draw, night):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.png").write_bytes(draw(index, 40 + index, 40))
    (folder / "t.tar").write_bytes(tar_of({f"t{i}.png": draw(i, 50 + i, 40) for i in range(6)}.items()))
    (folder / "u.tar").write_bytes(tar_of({f"u{i}.png": draw(i, 60 + i, 40) for i in range(3)}.items()))
    summary = night()
    assert (summary["listed"], summary["files"]) == (15, 5)
    first = files(output)

    # Nothing happened.
    assert "nothing to do" in night()["message"]
    assert files(output) == first

    # One image is new, one changed, one is gone; one tar is another now, one is gone.
    (folder / "00.png").write_bytes(draw(100, 70, 40))
    (folder / "1.png").write_bytes(draw(101, 71, 40))
    (folder / "2.png").unlink()
    (folder / "t.tar").write_bytes(tar_of({f"t{i}.png": draw(i, 80 + i, 40) for i in range(3)}.items()))
    (folder / "u.tar").unlink()
    planned = night("--dry-run")
    assert planned["shards_by_action"] == {"new": 1, "replace": 1, "rewrite": 1}
    assert (planned["changed_shards"], planned["removed_records"], planned["pruned_records"]) == (2, 4, 0)
    assert files(output) == first
    summary = night()
    assert (summary["listed"], summary["changed_shards"], summary["removed_records"]) == (5, 2, 4)
    assert summary["rows_in_output"] == 13
    expected = [("0.png", 40), ("00.png", 70), ("1.png", 71), ("2.png", 42), ("3.png", 43), ("4.png", 44)]
    expected += [("5.png", 45), ("t.tar#t0.png", 80), ("t.tar#t1.png", 81), ("t.tar#t2.png", 82)]
    gone = [("u.tar#u0.png", 60), ("u.tar#u1.png", 61), ("u.tar#u2.png", 62)]
    assert [(name, width) for name, _, width in rows(output)] == expected + gone
    second = files(output)
    # The slices of the unchanged files and of the removed tar are those of the first night.
    assert sum(second.get(name) == written for name, written in first.items()) == 2

    # The rows of what is gone are taken out when that is asked for.
    summary = night("--prune")
    assert (summary["pruned_records"], summary["rows_in_output"]) == (4, 9)
    expected.remove(("2.png", 42))
    assert [(name, width) for name, _, width in rows(output)] == expected
    assert "nothing to do" in night("--prune")["message"]

    # What comes back has its row again.
    (folder / "2.png").write_bytes(draw(2, 92, 40))
    (folder / "u.tar").write_bytes(tar_of({"u0.png": draw(0, 93, 40)}.items()))
    assert night()["rows_in_output"] == 11
    assert [(name, width) for name, _, width in rows(output)] == sorted(
        [*expected, ("2.png", 92), ("u.tar#u0.png", 93)]
    )


@pytest.mark.drill
def test_failed_records_are_tried_again_when_that_is_asked_for(tmp_path, draw, night):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(5):
        (folder / f"{index}.png").write_bytes(draw(index, 40, 40))
    (folder / "5.png").write_bytes(draw(5, 20, 40))
    (folder / "t.tar").write_bytes(tar_of({"t0.png": draw(0), "t1.png": b"no image", "t2.png": draw(2)}.items()))
    assert night()["failed_by_code"] == {"decode.unsupported": 1}
    before = files(output)
    assert "nothing to do" in night("--retry-failed", "source.unreadable")["message"]
    # It fails again, as was told the first time: no share of this run, however small that is.
    summary = night("--retry-failed", "decode.unsupported", "--max-failed-fraction", "0.1")
    assert (summary["listed"], summary["failed"], summary["retried_records"], summary["rows_in_output"]) == (1, 1, 1, 9)
    written = files(output)
    assert [name[0] for name in before if written[name] != before[name]] == ["t"]
    assert [name for name, status, _ in rows(output) if status == "failed"] == ["t.tar#t1.png"]
    # A first failure beside it is one.
    (folder / "6.png").write_bytes(b"no image")
    summary = night("--retry-failed", "decode.unsupported", "--max-failed-fraction", "0.1", code=6)
    assert (summary["listed"], summary["failed"], summary["retried_records"]) == (2, 2, 1)
