"""Units, crontab and page of the nightly runs: read by systemd, run by a shell, and compared with the jobs' parsers."""

import ast
import json
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs import label_dataset, submit
from jobs.cli.flags import EXIT_CODES
from pipeline.errors import ConfigError
from tests.support.named_tests import missing_tests, named_tests

ROOT = Path(__file__).resolve().parents[2]
SCHEDULE = ROOT / "infra" / "schedule"
PAGE = (ROOT / "docs" / "operate" / "schedules.md").read_text()
INSTALLED = "/opt/pvtv2-batch"
ALL_CODES = {int(code) for code in re.findall(r"(?:^| )(\d+) [a-z]", EXIT_CODES, re.MULTILINE)}


@pytest.fixture
def units(tmp_path):
    """The units as they are installed, on a machine where the package is."""
    folder = tmp_path / "units"
    shutil.copytree(SCHEDULE, folder)
    python = tmp_path / "package" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace(INSTALLED, str(tmp_path / "package")))
    return folder


def complaints(folder):
    """Returns systemd's complaints about the units; systemd ignores many mistakes and ends with 0."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here (Debian: apt-get install systemd)")
    units = [folder / "pvtv2-label.timer", folder / "pvtv2-label.service"]
    done = subprocess.run([program, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60)
    return done.stderr + (f"exit {done.returncode}" if done.returncode else "")


def setting(text, name):
    """Returns all values that a unit's text gives to one setting."""
    return " ".join(re.findall(rf"^{name}=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("drop_ins", [[], ["bounded.conf"], ["on-cluster.conf"], ["bounded.conf", "on-cluster.conf"]])
def test_systemd_reads_every_line_of_the_units(units, drop_ins):
    for path in (units / "pvtv2-label.service.d").iterdir():
        if path.name not in drop_ins:
            path.unlink()
    assert complaints(units) == ""


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pvtv2-label.service", "KillMode=mixed", "KillMode=mixd"),
        ("pvtv2-label.service", "Restart=on-failure", "Restart=always"),
        ("pvtv2-label.service", ".venv/bin/python", ".venv/bin/pythn"),
        ("pvtv2-label.service", "NoNewPrivileges", "NoNewPriviliges"),
        ("pvtv2-label.service", "StartLimitIntervalSec=20h", "StartLimitIntervalSec=20 moons"),
        ("pvtv2-label.timer", "01:30:00 UTC", "25:30:00 UTC"),
        ("pvtv2-label.timer", "Persistent=true", "Persistent=maybe"),
        ("pvtv2-label.service.d/bounded.conf", "SuccessExitStatus=9", "SuccessExitStatus=900"),
    ],
)
def test_a_mistake_in_a_unit_is_noticed(units, name, old, new):
    (units / "pvtv2-label.service.d" / "on-cluster.conf").unlink()  # it has a command of its own
    text = (units / name).read_text()
    assert old in text
    (units / name).write_text(text.replace(old, new))
    assert complaints(units)


def test_a_night_that_was_missed_is_made_up_for_by_systemd():
    timer = (SCHEDULE / "pvtv2-label.timer").read_text()
    assert setting(timer, "Persistent") == "true"
    # Local times are skipped or doubled twice a year.
    assert setting(timer, "OnCalendar").endswith(" UTC")


def test_a_unit_that_is_stopped_tells_the_driver_alone():
    unit = (SCHEDULE / "pvtv2-label.service").read_text()
    assert setting(unit, "KillMode") == "mixed"
    assert not setting(unit, "KillSignal")


def test_each_exit_code_ends_continues_or_fails_a_unit_as_the_page_says():
    unit = (SCHEDULE / "pvtv2-label.service").read_text()
    good = {0} | {int(code) for code in setting(unit, "SuccessExitStatus").split()}
    failed = {int(code) for code in setting(unit, "RestartPreventExitStatus").split()}
    assert setting(unit, "Restart") == "on-failure"
    assert not good & failed
    ways = {code: "good" if code in good else "alert" if code in failed else "again" for code in ALL_CODES | {8}}
    rows = re.findall(r"^\| (\d+) \|.*\| (good|again|alert)\b", PAGE, re.MULTILINE)
    assert {int(code): way for code, way in rows} == ways
    bounded = (SCHEDULE / "pvtv2-label.service.d" / "bounded.conf").read_text()
    assert setting(bounded, "SuccessExitStatus") == "9"


class Crontab:
    """The crontab on a machine where everything that it names is below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log" / f"label-{datetime.now(UTC):%F}.log"
        self.text = (SCHEDULE / "pvtv2-label.cron").read_text()
        (folder / "log").mkdir()
        (folder / "etc").mkdir()
        shutil.copy(SCHEDULE / "label.env", folder / "etc")
        python = folder / "package" / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        # A script in place of the job prints its words and its region, and ends with the exit code that a test sets.
        python.write_text(
            f'#!/bin/sh\nfor word in "$@"; do echo "word $word"; done\necho "region $AWS_REGION"\n'
            f'echo "oh dear" >&2\nexit "$(cat {folder}/code)"\n'
        )
        python.chmod(0o755)

    def run(self, code: int) -> subprocess.CompletedProcess:
        """Runs the command of the crontab as cron does; cron would mail the output."""
        (self.folder / "code").write_text(str(code))
        (line,) = [line for line in self.text.splitlines() if re.match(r"[\d*]", line)]
        user, command = line.split(maxsplit=6)[5:]
        assert user == "pvtv2"
        # The first percent sign that is not escaped ends the command; what follows would be its input.
        command = re.split(r"(?<!\\)%", command)[0].replace(r"\%", "%")
        for place, here in ((INSTALLED, "package"), ("/etc/pvtv2", "etc"), ("/var/log/pvtv2", "log")):
            command = command.replace(place, str(self.folder / here))
        settings = dict(re.findall(r"^([A-Z]+)=(.*)$", self.text, re.MULTILINE))
        env = {"HOME": str(self.folder), "LOGNAME": user, **settings}
        return subprocess.run(
            ["/bin/sh", "-c", command], env=env, cwd=self.folder, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def crontab(tmp_path):
    return Crontab(tmp_path)


def test_crons_command_runs_the_job_in_crons_poor_environment(crontab):
    done = crontab.run(0)
    assert (done.stdout, done.stderr) == ("", "")
    log = crontab.log.read_text()
    words = [line.removeprefix("word ") for line in log.splitlines() if line.startswith("word ")]
    assert words[:3] == ["jobs/label_dataset.py", "--input", "s3://bucket/photos"]
    assert parsed(words).wait_for_lease_s == 300
    assert "region eu-central-1" in log


@pytest.mark.parametrize("code", sorted(ALL_CODES | {8, 137}))
def test_cron_mails_what_is_for_people_and_nothing_else(crontab, code):
    done = crontab.run(code)
    assert done.stderr == ""
    assert bool(done.stdout) == (code not in (0, 10))
    if done.stdout:
        assert f"ended with exit {code}" in done.stdout
        assert "oh dear" in done.stdout


def test_cron_mails_if_it_cannot_even_start(crontab):
    (crontab.folder / "etc" / "label.env").unlink()
    assert crontab.run(0).stderr


def test_a_percent_sign_that_is_not_escaped_is_noticed(crontab):
    crontab.text = crontab.text.replace("\\%", "%")
    assert crontab.run(0).stderr


def test_the_environment_file_is_the_same_to_systemd_and_to_a_shell():
    lines = [line for line in (SCHEDULE / "label.env").read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r'[A-Z0-9_]+="[^"$`\\]*"', line) for line in lines)


def parsed(words):
    """Returns a command's flags as the command's own parser reads them."""
    if words[0] == "jobs/submit.py":
        # A snippet of Python puts the two together by itself.
        end = words.index("--") if "--" in words else len(words)
        assert end == len(words) or parsed(words[end + 2 :])
        return submit._parser().parse_args([*words[1:end], "--", "command"])
    assert words[0] == "jobs/label_dataset.py"
    return label_dataset._parser().parse_args(words[1:])


def commands(text):
    """Returns the command lines of jobs in a text, as words."""
    text = re.sub(r"\\\n\s*", "", text).replace("{{ dag_run.run_after | ds }}", "2026-11-27")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = [re.search(r"python (jobs/\w+\.py[^|>&;`\"]*)", line) for line in lines]
    return [shlex.split(match[1].replace("$PVTV2_FLAGS", flags_of_the_environment())) for match in found if match]


def flags_of_the_environment():
    return re.search(r'^PVTV2_FLAGS="(.*)"$', (SCHEDULE / "label.env").read_text(), re.MULTILINE)[1]


def code_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def strings(block):
    nodes = ast.walk(ast.parse(block))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("name", ["pvtv2-label.service", "pvtv2-label.service.d/on-cluster.conf"])
def test_every_flag_of_the_units_exists(name):
    (words,) = commands((SCHEDULE / name).read_text())
    assert parsed(words)


def test_every_flag_on_the_page_exists():
    snippets = [text for block in code_blocks("python") for text in strings(block)]
    found = [words for text in (*code_blocks("sh"), *snippets) for words in commands(text)]
    assert [words[0] for words in found].count("jobs/label_dataset.py") >= 4
    assert all(parsed(words) for words in found)


def test_a_flag_that_there_is_not_is_noticed():
    (words,) = commands("python jobs/submit.py -- python jobs/label_dataset.py --inptu a --weights b --output c")
    with pytest.raises(ConfigError):
        parsed(words)


def test_every_test_that_the_page_names_exists():
    assert len(named_tests(PAGE)) > 8
    assert missing_tests(PAGE) == []


def test_every_file_of_the_schedules_is_on_the_page():
    names = [path.name for path in SCHEDULE.rglob("*") if path.is_file()]
    assert not [name for name in names if f"`{name}`" not in PAGE]


def test_the_last_line_of_a_cluster_start_is_shown_as_it_is():
    (example,) = (json.loads(block) for block in code_blocks("json"))
    assert list(example) == ["status", "submission_id", "job_status", "exit_code", "summary"]
