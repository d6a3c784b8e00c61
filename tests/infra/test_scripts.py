"""The shell scripts, read by shellcheck."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((ROOT / "infra").rglob("*.sh")), ROOT / ".ci" / "run"]


def shellcheck(path):
    """Returns shellcheck's complaints about a script."""
    command = [Path(sys.executable).parent / "shellcheck", "--enable=check-unassigned-uppercase", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_no_complaint(script):
    assert shellcheck(script) == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_stops_at_what_fails(script):
    assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('rm -rf "$output"', "rm -rf $output", "SC2086"),
        ('output=$(realpath "$output")', "output=`realpath $outptu`", "SC2006"),
        ("done\n", "", "SC1061"),
        ('"$shards:/shards:ro"', "'$shards:/shards:ro'", "SC2016"),
    ],
)
def test_shellcheck_notices_a_mistake(tmp_path, old, new, rule):
    script = (ROOT / "infra" / "image" / "demo.sh").read_text()
    assert old in script
    (tmp_path / "demo.sh").write_text(script.replace(old, new))
    assert rule in shellcheck(tmp_path / "demo.sh")
