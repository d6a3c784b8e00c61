"""Ray's figures of its operators, from summaries that are made up; `tests/jobs/test_metrics.py` has real ones."""

from types import SimpleNamespace

from pipeline.account.ray_operators import Operator, Operators, operators_of

FIGURES = {
    "num_tasks_finished": 3,
    "num_tasks_failed": 1,
    "task_scheduling_time_s": 0.5,
    "task_submission_backpressure_time": 2.0,
    "task_output_backpressure_time_s": None,
    "num_alive_actors": 7,
}
READ = Operator(name="read", tasks=3, failed_tasks=1, scheduling_s=0.5, held_back_s=2.0)


def summary(name, *parents, figures=FIGURES, spilled=0):
    return SimpleNamespace(
        base_name=name, parents=parents, extra_metrics=figures, global_bytes_spilled=spilled, global_bytes_restored=1
    )


def dataset(found):
    return SimpleNamespace(get_stats_summary=lambda: found)


def test_operators_come_in_the_order_of_the_flow_by_our_names():
    line = summary(None, figures={})
    for name in ("FromArrow", "StreamingRepartition[num_rows_per_block=1]", "MapBatches(_read)", "MapBatches(_decode)"):
        line = summary(name, line)
    line = summary("Write", summary("MapBatches(CarefulInferActor)", line), spilled=9)
    found = operators_of(dataset(line))
    assert [operator.name for operator in found.operators] == ["read", "decode", "infer", "sink"]
    assert found.operators[0] == READ
    assert (found.spilled_bytes, found.restored_bytes) == (9, 1)


def test_passes_add_up_and_what_ray_counts_for_the_cluster_does_not():
    first = Operators(operators=(READ,), spilled_bytes=5)
    second = Operators(operators=(READ, Operator(name="sink", tasks=1)), spilled_bytes=7, restored_bytes=2)
    both = Operators() + first + second
    assert [(operator.name, operator.tasks, operator.held_back_s) for operator in both.operators] == [
        ("read", 6, 4.0),
        ("sink", 1, 0.0),
    ]
    assert (both.spilled_bytes, both.restored_bytes) == (7, 2)


def test_a_ray_that_says_nothing_or_something_else_ends_no_run(caplog):
    class Fails:
        def get_stats_summary(self):
            raise ValueError("no execution yet")

    assert operators_of(Fails()) == Operators()
    assert operators_of(dataset(SimpleNamespace())) == Operators()
    assert caplog.text.count("operators.unknown") == 2
