"""Tables from small results."""

from benchmarks.job.job import ratios
from benchmarks.tools.machine import command
from benchmarks.tools.tables import markdown


def row(contender: str, ms: float, ratio: float) -> dict:
    return {
        "case": "224x224", "allocator": "tuned", "precision": "fp32", "contender": contender, "images": 4,
        "ms_per_image": ms, "ours_times_as_fast": ratio, "largest_difference": 0.00012, "labels_that_differ": 1,
    }  # fmt: skip


def run(whole: float, steady: float, **other: int) -> dict:
    return {
        "whole_images_per_s": whole,
        "steady_images_per_s": steady,
        "rows_lost": 0,
        "labels_that_differ": 0,
        **other,
    }


def test_a_network_is_a_line_a_case_and_a_column_a_peer():
    results = [row("ours, packed", 20.0, 1.0), row("timm, batch 1", 31.0, 1.554)]
    assert markdown({"benchmark": "model", "variant": "b0", "results": results}) == (
        "| B0, allocator tuned | precision | ours, an image | timm, batch 1 |\n"
        "| --- | --- | ---: | ---: |\n"
        "| 224x224 | fp32 | 20.0 ms | 1.55x |\n"
        "\n"
        "|  | precision | largest difference | labels that differ |\n"
        "| --- | --- | ---: | ---: |\n"
        "| ours, packed | fp32 | 1.2e-04 | 1 of 4 |\n"
        "| timm, batch 1 | fp32 | 1.2e-04 | 1 of 4 |\n"
    )


def test_a_job_is_a_line_a_contender():
    runs = {"ours": [run(4.0, 8.0)], "Daft": [run(2.0, 0.0, rows_lost=3, labels_that_differ=2)]}
    times = {name: ratios(runs["ours"], theirs) for name, theirs in runs.items()}
    pixels = {"ours": "native", "Daft": "224"}
    report = {
        "benchmark": "job",
        "precision": "bf16",
        "images": 9,
        "runs": runs,
        "ours_times_as_fast": times,
        "pixels": pixels,
    }
    head, _, *lines = markdown(report).splitlines()
    assert head.startswith("| bf16, 9 images | pixels |")
    assert lines == [
        "| ours | native | 4.0 | 1.00x | 8.0 | 1.00x | 0 | 0 |",
        "| Daft | 224 | 2.0 | 2.00x | 0.0 | - | 3 | 2 |",
    ]


def test_ratios_are_medians_over_the_rounds():
    ours = [run(4.0, 4.0), run(4.0, 4.0), run(6.0, 4.0)]
    theirs = [run(2.0, 1.0), run(4.0, 1.0), run(1.0, 0.0)]
    assert ratios(ours, theirs) == {"whole_images_per_s": 2.0, "steady_images_per_s": 4.0}


def test_a_command_names_no_folder_of_the_machine():
    shown = command("benchmarks.job.job", ["--sizes", "/some/where/sizes.csv", "--out", "results/job b0.json"])
    assert shown == "python -m benchmarks.job.job --sizes sizes.csv --out 'results/job b0.json'"
