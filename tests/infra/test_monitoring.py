"""Alert rules, scrape configuration and dashboard, without a run; `tests/jobs/test_metrics.py` runs a job."""

import json
import re
import shutil
import subprocess

import pytest

from pipeline.account.metrics import NAMES
from tests.support.prometheus import MONITORING, program


@pytest.fixture
def promtool(tmp_path):
    """Runs promtool's tests of the alert rules, with one text in the rules replaced; returns the finished process."""
    binary = program("promtool")

    def run(old: str = "", new: str = "") -> subprocess.CompletedProcess:
        rules = (MONITORING / "alerts.yml").read_text()
        assert old in rules
        (tmp_path / "alerts.yml").write_text(rules.replace(old, new) if old else rules)
        shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
        command = [binary, "test", "rules", "alerts_test.yml"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def test_made_up_series_raise_the_alerts_that_they_should(promtool):
    done = promtool()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("> 600", "> 60000"),
        ("and on (run_id) (max by (run_id) (last_over_time(ray_pvtv2_running[2m])) == 1)", ""),
        ("unless on (run_id) max by (run_id) (last_over_time(ray_pvtv2_running[2m]))", ""),
        ("> 0.05", "> 0.5"),
        ("> 0.05", "> 0.04"),
        ("> 0.5\n", "> 0.9\n"),
        ("> 0.5\n", "> 0.4\n"),
        ("> 0.1\n", "> 0.3\n"),
        ('{status="failed"}', ""),
    ],
)
def test_a_rule_that_is_changed_is_noticed(promtool, old, new):
    assert promtool(old, new).returncode != 0


def test_the_scrape_configuration_is_valid_and_keeps_what_is_asked_for():
    command = [program("promtool"), "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r"regex: (ray_\(.*\))", (MONITORING / "prometheus.yml").read_text()).group(1)
    assert asked_for() and all(re.fullmatch(kept, name) for name in asked_for())


def test_alerts_and_dashboard_ask_for_metrics_that_there_are():
    ours = {name.removeprefix("ray_") for name in asked_for() if "pvtv2" in name}
    assert ours <= set(NAMES)
    # Every metric but these two is used by an alert or by the dashboard.
    assert set(NAMES) - ours == {"pvtv2_planned_images", "pvtv2_infer_actors"}


def test_every_alert_has_its_page_and_every_panel_its_place():
    runbook = (MONITORING.parents[1] / "docs" / "operate" / "monitoring.md").read_text()
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    assert alerts
    assert all(f"### {alert}\n" in runbook for alert in alerts)
    assert all(f"`{name}" in runbook for name in NAMES)
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    cells = [
        (place["x"] + dx, place["y"] + dy)
        for place in (panel["gridPos"] for panel in panels)
        for dx in range(place["w"])
        for dy in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def asked_for() -> set[str]:
    """Returns the metrics that alerts and dashboard name."""
    texts = [(MONITORING / name).read_text() for name in ("alerts.yml", "dashboard.json")]
    return set(re.findall(r"\bray_\w+", " ".join(texts)))
