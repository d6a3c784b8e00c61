"""The job on a store that takes back a permission while it runs, and on one that loses answers."""

import io

import pyarrow.parquet as pq
import pytest

from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from tests.support.fault_proxy import Cut, FaultProxy, Lose, Refuse

pytestmark = [
    pytest.mark.drill,
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_an_output_that_may_not_be_written_any_more_exits_5_and_the_same_command_continues(
    run_here, profile, s3, tiny_weights, draw, tmp_path
):
    (tmp_path / "in").mkdir()
    for index in range(24):
        (tmp_path / "in" / f"{index:02d}.png").write_bytes(draw(index))
    output = f"s3://{s3.make_bucket()}/out"
    with FaultProxy(s3.endpoint_url, seed=1) as proxy:
        store = StoreConfig(profile=profile, endpoint_url=proxy.endpoint_url)

        def run():
            return run_here(
                *("--input", tmp_path / "in", "--weights", tiny_weights, "--output", output, "--rows-per-file", "4"),
                *("--output-profile", profile, "--output-endpoint-url", proxy.endpoint_url),
            )

        def rows():
            files = [info for info in StorePath(f"{output}/data", store).list()]
            tables = [pq.read_table(io.BytesIO(StorePath(info.uri, store).read())) for info in files]
            return len(files), sorted(row for table in tables for row in table.column("row").to_pylist())

        refused = proxy.add("^PUT .*/data/", Refuse(403, "AccessDenied"), skip=2)
        stopped = run()
        assert stopped.code == 5
        assert refused.num_fired >= 1
        assert "403 AccessDenied" in stopped.summary["error"]
        assert "the rows published so far are whole, the same command continues" in stopped.summary["error"]
        assert "Traceback" not in stopped.stderr
        proxy.clear()
        num_files, found = rows()
        assert (num_files, len(found)) == (2, 8)

        # It continues, on a store that now loses answers and cuts bodies.
        faults = [proxy.add("^PUT ", Lose(), probability=0.3), proxy.add("^GET ", Cut(), probability=0.1)]
        finished = run()
        proxy.clear()
        assert finished.code == 0, finished.stderr
        assert sum(rule.num_fired for rule in faults) > 0
        assert rows() == (6, list(range(24)))
