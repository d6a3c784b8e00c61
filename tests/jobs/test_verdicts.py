"""Real runs in which one step after the other is slow: the verdict names it."""

import time

import pytest

from benchmarks.job.stand_ins import SleepingNetwork
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.flow.steps import Steps
from pipeline.inputs.config import InputConfig
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare
from pipeline.store.config import StoreConfig
from tests.support.fault_proxy import FaultProxy, Late
from tests.support.slow_steps import SlowDecoding

NUM_TARS, IMAGES_PER_TAR = 12, 12

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def tars(make_tars, draw):
    """The URI of a bucket with small tars of small images."""
    return make_tars(
        [draw(number * IMAGES_PER_TAR + index, 64, 64) for index in range(IMAGES_PER_TAR)] for number in range(NUM_TARS)
    )


@pytest.mark.parametrize(
    ("slow", "bound_by"),
    [
        ({"network": 0.12}, "network"),
        pytest.param({"decode": 0.06}, "decode", marks=pytest.mark.drill),
        pytest.param({"store": 1.5}, "store", marks=pytest.mark.drill),
        pytest.param({"sink": 0.7}, "sink", marks=pytest.mark.drill),
    ],
    ids=["network", "decode", "store", "sink"],
)
def test_the_step_that_is_slow_is_named(on_warm_ray, tars, profile, s3, tiny_weights, slow, bound_by):
    """Seconds are those of an image, and of a request to the store."""
    with FaultProxy(s3.endpoint_url, seed=1) as proxy:
        for what, pattern in (("store", r"^GET .*/in/.*\.tar"), ("sink", r"^PUT .*/data/")):
            if what in slow:
                proxy.add(pattern, Late(), meanwhile=lambda seconds=slow[what]: time.sleep(seconds))
        store = StoreConfig(profile=profile, endpoint_url=proxy.endpoint_url)
        config = JobConfig(
            task=Classify(top_k=1),
            input=InputConfig(uris=(f"{tars}/in",), store=store),
            output=OutputConfig(uri=f"{tars}/out", store=store),
            weights=str(tiny_weights),
            compute=ComputeConfig(num_actors=(1, 1), device="cpu", price_per_hour=1.0),
            run_id="slow",
        )
        steps = Steps(decode=SlowDecoding(slow.get("decode", 0.001)), infer=SleepingNetwork(slow.get("network", 0.002)))
        with Lease(config.output.folder, "slow") as lease:
            report = execute(*prepare(config, time.time(), lease), lambda _: None, steps)
    assert (report.status, report.run.listed, report.passes) == ("done", NUM_TARS * IMAGES_PER_TAR, 1)
    assert report.verdict.bound_by == bound_by
