"""Audits of one real output, as it is and after it was tampered with."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.audit.__main__ import main
from tests.infra.audit.conftest import drawn

# The table of what was counted, as it is printed.
COUNTED = {
    "files": 14, "records listed": 44, "ok": 37, "failed": 7, "decode.corrupt": 1, "decode.empty": 1,
    "decode.unsupported": 1, "source.missing": 1, "source.truncated": 1, "source.unreadable": 2,
}  # fmt: skip


@pytest.fixture
def output(made, tmp_path):
    """A copy of the output, to tamper with."""
    return Path(shutil.copytree(made.output, tmp_path / "out"))


@pytest.fixture
def audited(made, capsys):
    """Audits an output, of the inputs that it was made of; returns (exit code, stdout, stderr)."""

    def run(output, *flags, inputs=(made.inputs,)):
        code = main(["--input", *map(str, inputs), "--output", str(output), *map(str, flags)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return run


def data_file(output, part):
    """Returns the first output file whose name begins with this text."""
    return sorted(output.glob(f"data/{part}*.parquet"))[0]


def footer_of(path):
    return json.loads(pq.read_metadata(path).metadata[b"pvtv2"])


def rewrite(path, change_rows=lambda rows: rows, change_footer=lambda footer: footer):
    """Writes an output file again, with other rows or another footer."""
    rows, footer = pq.read_table(path), change_footer(footer_of(path))
    changed = change_rows(rows)
    with pq.ParquetWriter(path, changed.schema) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata({"pvtv2": json.dumps(footer, sort_keys=True)})


def report_path(output):
    (path,) = output.glob("runs/*/report.json")
    return path


def change_report(output, change):
    path = report_path(output)
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def with_column(name, change):
    """Returns a function that changes the values of one column."""

    def changed(rows):
        values = change(rows.column(name).to_pylist())
        at = rows.schema.get_field_index(name)
        return rows.set_column(at, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))

    return changed


def test_an_output_of_every_kind_of_input_agrees(made, audited):
    code, out, _ = audited(made.output)
    assert code == 0, out
    assert out.endswith("All of it agrees.\n")
    for name, count in COUNTED.items():
        lines = re.findall(rf"^ +{re.escape(name)} +(\d+) +(\d+)  equal$", out, re.MULTILINE)
        assert lines == [(str(count), str(count))] * 2, name
    assert re.search(r"records in the inputs +41\n.*without a row +0\n.*without input +0\n", out)
    assert "cut.tar breaks off after 3 records (it ends inside '3.png'); 0 rows" in out
    assert "not counted again: sizes of images" in out


def drop_a_row(output):
    rewrite(data_file(output, "a-"), lambda rows: rows.slice(1))


def double_a_row(output):
    rewrite(data_file(output, "b-"), lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))


def delete_a_file(output):
    data_file(output, "a-").unlink()


def say_another_size(output):
    rewrite(data_file(output, "b-"), with_column("net_width", lambda values: [values[0] + 32, *values[1:]]))


def exchange_an_id(output):
    rewrite(data_file(output, "b-"), with_column("image_id", lambda values: [values[0] + "x", *values[1:]]))


def exchange_bytes(output):
    rewrite(data_file(output, "in-"), with_column("encoded_bytes", lambda values: [values[0] + 1, *values[1:]]))


def exchange_rows(output):
    rewrite(data_file(output, "a-"), with_column("row", lambda values: [values[1], values[0], *values[2:]]))


def move_a_slice(output):
    rewrite(data_file(output, "a-"), change_footer=lambda footer: {**footer, "first_row": 1})


def break_a_file(output):
    data_file(output, "p-").write_bytes(b"no Parquet")


def add_a_foreign_file(output):
    pq.write_table(pq.read_table(data_file(output, "b-")).slice(0, 0), output / "data" / "mine.parquet")


def copy_a_file(output):
    path = data_file(output, "a-")
    shutil.copy(path, path.with_name(path.name.replace("-00000", "-00007")))


def write_for_another_job(output):
    rewrite(data_file(output, "a-"), change_footer=lambda footer: {**footer, "identity": "0" * 64})


def count_another_code(output):
    rewrite(data_file(output, "cut-"), with_column("error_code", lambda values: [*values[:-1], "decode.corrupt"]))


def say_less_in_the_index(output):
    rows = pq.read_table(output / "_index.parquet")
    pq.write_table(rows.slice(1), output / "_index.parquet")


TAMPERED: list[tuple[Callable, list[str]]] = [
    (drop_a_row, [
        r"data/a-\w+-00000.parquet: 3 records in its rows, 4 in its footer",
        r"in/tars/a.tar: 1 of its 10 records have no row, .*a.tar#0.png the first",
        r"the whole output: 43 records listed in the files, 44 in report.json",
    ]),
    (double_a_row, [r"b.tgz#0.png has 2 rows", r"this run: 45 records listed in the files, 44 in report.json"]),
    (delete_a_file, [
        r"_index.parquet names a-\w+-00000.parquet, which is not in data/",
        r"in/tars/a.tar: no file holds slice 0, though slice 1 is there",
        r"in/tars/a.tar: 4 of its 10 records have no row",
        r"the whole output: 13 files in the files, 14 in report.json",
    ]),
    (say_another_size, [r"data/b-\w+-00000.parquet: [\d,]+ pixels in its rows", r"MACs in its rows",
                        r"this run: [\d,]+ pixels in the files", r"the whole output: [\d,]+ MACs in the files",
                        r"row 0 \(.*\) of (\d+)x(\d+) px was seen at \d+x\2 px, by _job.json at \1x\2"]),
    (exchange_an_id, [r"row 0 \(.*b.tgz#0.pngx\) is not what", r"is no record of its shard, which is still there",
                      r"b.tgz: 1 of its 5 records have no row, .*b.tgz#0.png the first"]),
    (exchange_bytes, [r"00.png: the row says [\d,]+ encoded bytes, the input has [\d,]+; did it change since\?|"
                      r"_DSC1.png: the row says"]),
    (exchange_rows, [r"a.tar#0.png is row 1, but record 0 of its shard"]),
    (move_a_slice, [r"a.tar: slice 0 begins at row 1, expected 0", r"4 rows, but by its footer it spans rows 1 to 3",
                    r"_index.parquet says something else of data/a-"]),
    (break_a_file, [r"data/p-\w+-00000.parquet cannot be read", r"p.parquet: 4 of its 7 records have no row"]),
    (add_a_foreign_file, [r"data/mine.parquet has no footer of an output file"]),
    (copy_a_file, [r"data/a-\w+-00007.parquet: by its footer it holds slice 0", r"a.tar: two files hold slice 0",
                   r"a.tar#0.png has 2 rows", r"_index.parquet lacks data/a-\w+-00007.parquet"]),
    (write_for_another_job, [r"data/a-\w+-00000.parquet was written for another _job.json than is there"]),
    (count_another_code, [r"data/cut-\w+: 1 rows failed with decode.corrupt, 0 by its footer|"
                          r"data/cut-\S+: 1 rows failed with decode.corrupt, 0 by its footer",
                          r"1 source.truncated|0 source.truncated in the files, 1 in report.json"]),
    (say_less_in_the_index, [r"_index.parquet lacks data/"]),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "sentences"), TAMPERED, ids=[tamper.__name__ for tamper, _ in TAMPERED])
def test_what_was_tampered_with_is_named(output, audited, tamper, sentences):
    tamper(output)
    code, out, _ = audited(output)
    assert code == 7
    assert out.endswith("Something disagrees.\n")
    for sentence in sentences:
        assert re.search(sentence, out.partition("What disagrees:")[2]), (sentence, out)


@pytest.mark.parametrize("part", ["run", "output"])
@pytest.mark.parametrize("name", ["listed", "ok", "failed", "bytes", "pixels", "macs", "files"])
def test_one_wrong_number_in_the_report_is_named(output, audited, part, name):
    change_report(output, lambda report: report[part].update({name: report[part][name] + 1}))
    code, out, _ = audited(output)
    assert code == 7
    (problem,) = out.partition("What disagrees:\n")[2].partition("\n\n")[0].splitlines()
    what = {"listed": "records listed", "bytes": "encoded bytes", "macs": "MACs"}.get(name, name)
    of = {"run": "this run", "output": "the whole output"}[part]
    assert re.fullmatch(rf"  {of}: [\d,]+ {what} in the files, [\d,]+ in report.json", problem)
    assert "NOT EQUAL" in out


def test_a_code_that_only_the_report_has_is_named(output, audited):
    change_report(output, lambda report: report["run"]["failed_by_code"].update({"infer.crashed": 2}))
    code, out, _ = audited(output)
    assert code == 7
    assert "this run: 0 infer.crashed in the files, 2 in report.json" in out


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"run": 1, "output": {}}'], ids=repr)
def test_a_report_that_is_none_is_named(output, audited, body):
    report_path(output).write_bytes(body)
    code, out, _ = audited(output)
    assert code == 7
    assert "report.json is no report" in out


def test_an_input_that_came_after_the_run_has_no_row(made, audited, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "new.png").write_bytes(drawn(50))
    code, out, _ = audited(made.output, inputs=(made.inputs, tmp_path / "more"))
    assert code == 7
    assert f"file://{tmp_path}/more/new.png has no row" in out


def test_a_name_gives_a_terminal_no_orders(made, audited, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "\x1b[2J\x9b31mnew.png").write_bytes(drawn(50))
    code, out, err = audited(made.output, inputs=(made.inputs, tmp_path / "more"))
    assert code == 7
    assert r"more/\x1b[2J\x9b31mnew.png has no row" in out
    assert all(c.isprintable() or c == "\n" for c in out + err)


def test_rows_of_an_input_that_is_gone_are_told_apart(made, audited, tmp_path):
    gone = made.inputs / "loose" / "cat" / "03.png"
    shutil.move(gone, tmp_path / "away.png")
    try:
        code, out, _ = audited(made.output)
        strict, strict_out, _ = audited(made.output, "--strict")
    finally:
        shutil.move(tmp_path / "away.png", gone)
    assert code == 0, out
    assert re.search(r"rows without input +1\n", out)
    assert f"file://{gone} has a row, but is not among the inputs" in out
    assert strict == 7
    assert f"file://{gone} has a row" in strict_out.partition("What disagrees:")[2]


def stop_before_the_end(output, last):
    """Changes the output into that of a run which was stopped before it wrote one slice of `a.tar`."""
    path = data_file(output, last)
    totals = footer_of(path)["totals"]
    path.unlink()
    (output / "_index.parquet").unlink()

    def change(report):
        report["status"] = "stopped"
        for part in (report["run"], report["output"]):
            for name in ("listed", "ok", "failed", "bytes", "pixels", "macs", "files"):
                part[name] -= totals[name]

    change_report(output, change)


def test_a_stopped_run_lacks_rows_but_its_sums_agree(output, audited):
    stop_before_the_end(output, "a-*-end")
    code, out, _ = audited(output)
    assert code == 0, out
    assert "the run ended early (stopped)" in out
    assert "a.tar: no file holds what follows slice 1" in out
    assert "a.tar: 2 of its 10 records have no row" in out
    change_report(output, lambda report: report["run"].update(pixels=1))
    code, out, _ = audited(output)
    assert code == 7
    assert re.search(r"this run: [\d,]+ pixels in the files, 1 in report.json", out)


def test_what_a_run_left_out_since_it_is_older_needs_no_row(made, output, audited, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "old.png").write_bytes(drawn(0))
    inputs = (made.inputs, tmp_path / "more")
    assert audited(output, inputs=inputs)[0] == 7
    change_report(output, lambda report: report.update(left_out={"older_objects": 1}))
    code, out, _ = audited(output, inputs=inputs)
    assert code == 0, out
    assert "the run left out 1 objects that are older than its --since" in out
    assert "more/old.png has no row" in out


def test_a_run_that_left_no_report_is_compared_with_nothing(output, audited):
    report_path(output).unlink()
    (next(output.glob("runs/*")) / "left.txt").write_text("its folder")
    code, out, _ = audited(output)
    assert code == 0, out
    assert "report.json is not there, so its sums are compared with nothing" in out


def test_what_a_run_exchanged_in_older_files_is_its_footers_word(output, audited):
    path = data_file(output, "a-")
    before = footer_of(path)["totals"]
    own = {**before, "listed": 1, "ok": 1, "bytes": 10, "pixels": 20, "macs": 30}
    rewrite(path, change_footer=lambda footer: {**footer, "own": own})

    def change(report):
        for name in ("listed", "ok", "bytes", "pixels", "macs"):
            report["run"][name] += own[name] - before[name]

    change_report(output, change)
    code, out, _ = audited(output)
    assert code == 0, out
    assert "1 files had rows exchanged by this run" in out


def test_an_earlier_run_may_have_less_than_it_reported_but_not_more(output, audited):
    """A later run replaced one of the earlier run's files."""
    earlier = report_path(output).parent
    later = Path(shutil.copytree(earlier, earlier.parent / "z"))
    (later / "report.json").write_text((later / "report.json").read_text().replace(earlier.name, "z"))
    (output / "_index.parquet").unlink()
    path = data_file(output, "b-")
    totals = footer_of(path)["totals"]
    rewrite(path, change_footer=lambda footer: {**footer, "run_id": "z"})
    later_report = json.loads((later / "report.json").read_text())
    later_report["run"] = {**totals, "files": 1}
    (later / "report.json").write_text(json.dumps({**later_report, "status": "stopped"}))
    code, out, _ = audited(output)
    assert code == 0, out
    code, out, _ = audited(output, "--run-id", earlier.name)
    assert code == 0, out
    assert re.search(r"records listed +40 +44  less\n", out)
    report = json.loads((earlier / "report.json").read_text())
    report["run"]["pixels"] = 1
    (earlier / "report.json").write_text(json.dumps(report))
    code, out, _ = audited(output, "--run-id", earlier.name)
    assert code == 7
    assert re.search(r"this run: [\d,]+ pixels in the files, 1 in report.json", out)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--run-id", "other"], "holds no run 'other'"),
        (["--memory-limit", "many"], "the database cannot be made"),
        (["--temp-dir", "/nowhere"], "no scratch folder"),
        (["--input", "/nowhere/at/all"], "nothing is there"),
        (["--input", "gs://bucket/x"], "local paths and s3:// only"),
        (["--input", ""], "an empty path"),
        (["--output", "/nowhere/at/all"], "it has no _job.json"),
    ],
    ids=str,
)
def test_what_cannot_be_audited_exits_2_with_a_sentence(made, audited, flags, sentence):
    code, out, err = audited(made.output, *flags)
    assert (code, out) == (2, "")
    assert sentence in err


@pytest.mark.parametrize("body", [b"{}", b"no JSON", b'{"model": {"embed_dims": [1]}}'], ids=repr)
def test_a_job_file_that_says_nothing_exits_2(output, audited, body):
    (output / "_job.json").write_bytes(body)
    code, _, err = audited(output)
    assert code == 2
    assert "_job.json says nothing that can be used" in err


def test_an_output_inside_an_input_exits_2(made, audited):
    code, _, err = audited(made.output, inputs=(made.output.parent,))
    assert code == 2
    assert "lies inside the input" in err


def test_inputs_and_output_on_s3_are_counted_alike(made, output, audited, s3_env, s3_root, monkeypatch):
    """The same files are copied to a store, and every URI in them is changed to the one in the store."""
    local, remote = f"file://{made.inputs}", f"{s3_root}/in"
    move = with_moved(local, remote)
    for path in (output / "data").iterdir():
        rewrite(path, lambda rows: move(move(rows, "image_id"), "shard"),
                lambda footer: {**footer, "shard": footer["shard"].replace(local, remote)})  # fmt: skip
    index = pq.read_table(output / "_index.parquet")
    pq.write_table(move(index, "shard"), output / "_index.parquet")
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3_env.client()) as client:
        for root, name in ((made.inputs, "in"), (output, "out")):
            for path in (path for path in root.rglob("*") if path.is_file()):
                client.put_object(
                    Bucket=bucket, Key=f"{prefix}/{name}/{path.relative_to(root)}", Body=path.read_bytes()
                )
        client.put_object(Bucket=bucket, Key=f"{prefix}/in-other/x.png", Body=b"beside the input")
    code, out, err = audited(f"{s3_root}/out", inputs=(remote,))
    assert code == 0, out + err
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    code, out, err = audited(f"{s3_root}/out", "--endpoint-url", s3_env.endpoint_url, inputs=(remote,))
    assert code == 0, out + err
    code, out, err = audited(f"{s3_root}/out", "--endpoint-url", "http://127.0.0.1:9", inputs=(remote,))
    assert (code, out) == (2, "")


def with_moved(before, after):
    """Returns a function that replaces one root by another in all values of a column."""

    def moved(rows, name):
        return with_column(name, lambda values: [value.replace(before, after) for value in values])(rows)

    return moved
