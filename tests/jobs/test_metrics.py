"""A real Prometheus scrapes a real run: its metrics equal the report's account, and the dashboard queries them."""

import json
import math
import time

import pytest
import ray

from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.flow.steps import NETWORK, Steps
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare
from pipeline.store.config import StoreConfig
from tests.jobs.conftest import joined_ray
from tests.support.fault_proxy import FaultProxy, Refuse
from tests.support.prometheus import MONITORING, Prometheus, running_prometheus
from tests.support.ray_settings import RAY_SETTINGS
from tests.support.slow_steps import SlowDecoding
from tests.support.waiting import eventually

NUM_TARS, IMAGES_PER_TAR = 6, 16
BROKEN = 3  # in each tar
# Whether there are any of these is a matter of luck.
MAY_BE_EMPTY = ("ray_pvtv2_replayed_chunks_total",)

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def warm_ray(tmp_path_factory):
    """A local Ray whose processes tell their metrics every second, not every ten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RAY_SETTINGS, "RAY_metrics_report_interval_ms", "1000")
        with joined_ray(ComputeConfig(), tmp_path_factory.mktemp("home")) as joined:
            yield joined


@pytest.fixture
def prometheus(warm_ray, tmp_path):
    targets = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()]
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with running_prometheus(folder, targets) as prometheus:
        yield prometheus


@pytest.fixture
def tars(make_tars, draw):
    """The URI of a bucket with tars of small images, some of which are none."""

    def image(number, index):
        return b"no image" if index < BROKEN else draw(number * IMAGES_PER_TAR + index, 64, 64)

    return make_tars([image(number, index) for index in range(IMAGES_PER_TAR)] for number in range(NUM_TARS))


@pytest.fixture
def report(on_warm_ray, prometheus, tars, profile, s3, tiny_weights):
    """That of a run which Prometheus has seen to its end, and a moment at which it went on.

    Some of its reads were refused at first.
    """
    with FaultProxy(s3.endpoint_url, seed=1) as proxy:
        proxy.add(r"^GET .*/in/.*\.tar", Refuse(503, "SlowDown"), times=2)
        store = StoreConfig(profile=profile, endpoint_url=proxy.endpoint_url)
        config = JobConfig(
            task=Classify(top_k=1),
            input=InputConfig(uris=(f"{tars}/in",), store=store),
            output=OutputConfig(uri=f"{tars}/out", store=store),
            weights=str(tiny_weights),
            compute=ComputeConfig(num_actors=(1, 1), device="cpu"),
            run_id="seen",
        )
        steps = Steps(decode=SlowDecoding(0.03), infer=NETWORK.infer)  # Prometheus sees it more than once
        with Lease(config.output.folder, "seen") as lease:
            moments = []
            report = execute(*prepare(config, time.time(), lease), lambda _: moments.append(time.time()), steps)
    assert (report.status, report.run.listed) == ("done", NUM_TARS * IMAGES_PER_TAR)
    eventually(lambda: prometheus.values('ray_pvtv2_running{run_id="seen"} == 0'))
    return report.to_dict(), moments[-1] - 1.0


def only(prometheus: Prometheus, query: str) -> float:
    (value,) = prometheus.values(query).values()
    return value


@pytest.mark.drill
def test_what_prometheus_has_of_a_run_is_its_report(prometheus, report):
    report, moment = report
    run, work, steps = report["run"], report["work"], report["seconds"]["steps"]
    ((code, failed),) = run["failed_by_code"].items()
    assert failed == NUM_TARS * BROKEN
    for name, value in (
        ("images_total", run["listed"]),
        ('images_total{status="failed"}', failed),
        (f'failures_total{{code="{code}"}}', failed),
        ("pixels_total", run["pixels"]),
        ("macs_total", run["macs"]),
        ("read_bytes_total", work["bytes_in"]),
        ("store_requests_total", work["requests"]),
        ("store_retries_total", work["retries"]),
        ("published_images_total", run["listed"]),
        ("published_files_total", run["files"]),
        ("published_bytes_total", work["bytes_out"]),
    ):
        assert only(prometheus, f"sum(ray_pvtv2_{name})") == value, name
    assert not prometheus.values("ray_pvtv2_planned_images")  # tars hide how many there are
    told = {dict(labels)["step"]: value for labels, value in prometheus.values("ray_pvtv2_step_seconds_total").items()}
    assert told.keys() == {step for step, seconds in steps.items() if seconds}
    assert all(math.isclose(told[step], steps[step], abs_tol=0.002) for step in told), (told, steps)
    operators = {operator["name"]: operator for operator in report["ray"]["operators"]}
    assert list(operators) == ["read", "decode", "infer", "sink"]
    assert all(operator["tasks"] > 0 == operator["failed_tasks"] for operator in operators.values())
    # Gauges are gone soon after the run.
    assert only(prometheus, "last_over_time(ray_pvtv2_infer_actors[5m])") == 1
    assert 0.5 < only(prometheus, "last_over_time(ray_pvtv2_work_done_ratio[5m])") <= 1  # tars have more than images
    (info,) = prometheus.values("last_over_time(ray_pvtv2_run_info[5m])")
    precision = report["identity"]["precision"]
    assert {**dict(info), "run_id": "seen", "kind": "classify", "device": "cpu", "precision": precision} == dict(info)

    # The alerts' own queries are understood: some images fail and the network waits, but that has not gone on for long,
    # or was over when it was first looked at.
    eventually(lambda: all(rule["health"] == "ok" for rule in prometheus.get("rules")["groups"][0]["rules"]))
    alerts = {alert["labels"]["alertname"]: alert["state"] for alert in prometheus.get("alerts")["alerts"]}
    assert alerts.items() <= {"PVTv2ImagesFailing": "pending", "PVTv2ActorsStarved": "pending"}.items()

    # Every query of the dashboard, and the one that fills its list of runs.
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 15
    for query in queries:
        asked = query.replace("$run_id", "seen").replace("$__rate_interval", "1m")
        if not any(name in query for name in MAY_BE_EMPTY):
            eventually(lambda asked=asked: prometheus.values(asked, at=moment) or prometheus.values(asked))
    (runs,) = (entry for entry in dashboard["templating"]["list"] if entry["name"] == "run_id")
    assert runs["query"]["query"] == "label_values(ray_pvtv2_images_total, run_id)"
    series = prometheus.get("series", **{"match[]": "ray_pvtv2_images_total"})
    assert {found["run_id"] for found in series} == {"seen"}
