"""The headline and the sections of tables on the page of one run. Each section is None if the report has no data."""

from collections.abc import Mapping
from typing import Any

from pipeline.chunks.measures import SECONDS
from pipeline.page.parts import Cell, Figure, Kind, Section, Table, at, figure, mapping, number, sequence, shares, text

Report = Mapping[str, Any]

_RATES = ("images_per_s", "mpix_per_s", "gmac_per_s")
_ACCOUNT: tuple[tuple[str, str, Kind], ...] = (
    ("listed", "Listed", "count"),
    ("ok", "Ok", "count"),
    ("failed", "Failed", "count"),
    ("ignored", "Ignored names", "count"),
    ("bytes", "Encoded bytes", "bytes"),
    ("pixels", "Pixels", "large"),
    ("macs", "Multiply-accumulates", "large"),
    ("files", "Files", "count"),
)
_SECONDS = (
    ("wall", "Wall, from the start of the program"),
    ("model_load", "Weights fetched and checked"),
    ("listing", "Listing and planning"),
    ("first_row", "Until the first row"),
    ("steady", "Steady: the middle eight tenths of the network's work"),
    ("drain", "From the end of the network's work to the report"),
)
_STEPS = (*SECONDS, "serialise", "put")
_WAITING = ("first_byte", "fetch", "read_wait", "hand_over", "wait", "download")
_WORK: tuple[tuple[str, str, Kind], ...] = (
    ("requests", "Requests to stores", "count"),
    ("retries", "Requests asked again", "count"),
    ("bytes_in", "Read", "bytes"),
    ("bytes_out", "Written", "bytes"),
    ("tokens", "Tokens", "large"),
    ("packs", "Packs", "count"),
    ("pack_fill", "Fill of packs", "share"),
    ("chunks", "Chunks", "count"),
    ("replayed_chunks", "Chunks done again", "count"),
)
_COST = (
    ("gpu_hours", "GPU hours"),
    ("price_per_hour", "Price of an hour"),
    ("per_million_images", "Per million images"),
)


def headline(report: Report) -> list[tuple[str, Figure]]:
    """Returns the figures at the top of the page, each with its name."""
    wanted: tuple[tuple[str, str, Kind], ...] = (
        ("Images ok", "run.ok", "count"),
        ("Failed", "run.failed", "count"),
        ("Images a second", "rates.images_per_s", "rate"),
        ("Megapixels a second", "rates.mpix_per_s", "rate"),
        ("Giga-MACs a second", "rates.gmac_per_s", "rate"),
        ("Wall time", "seconds.wall", "seconds"),
    )
    found = [(name, figure(report, field, kind)) for name, field, kind in wanted]
    return [(name, value) for name, value in found if value.value is not None]


def verdict(report: Report) -> Section | None:
    """Returns the section about the step that bounds the run, with advice."""
    if not (at(report, "verdict.sentence") or at(report, "verdict.bound_by")):
        return None
    sentence = at(report, "verdict.sentence") or f"Bound by {text(at(report, 'verdict.bound_by'))}."
    advice = [text(line) for line in sequence(at(report, "verdict.advice"))]
    return Section(anchor="verdict", title="Verdict", note=text(sentence), advice=advice)


def rates(report: Report) -> Section | None:
    """Returns the section of rates: the whole run, its steady part, the network alone, the efficiency and the cost."""
    rows: list[list[Cell]] = []
    for name, field in (("Whole run", "rates"), ("Steady", "rates.steady"), ("Network alone", "rates.model")):
        row = [figure(report, f"{field}.{rate}", "rate") for rate in _RATES]
        if any(cell.value is not None for cell in row):
            rows.append([name, *row])
        elif field == "rates.steady" and at(report, "rates.steady_images_per_s"):
            rows.append([name, figure(report, "rates.steady_images_per_s", "rate"), *row[1:]])
    tables = []
    if rows:
        head = ("", "Images/s", "Mpix/s", "GMAC/s")
        tables.append(Table(caption="Images, megapixels and giga-MACs a second", head=head, rows=rows))
    paid = [(name, figure(report, f"cost.{key}", "plain")) for key, name in _COST]
    use: list[tuple[str, Figure]] = [
        ("Peak of the processor, GFLOP/s", figure(report, "efficiency.peak_gflops", "rate")),
        ("Of it used by the network", figure(report, "efficiency.mfu", "share")),
    ]
    more: list[list[Cell]] = [[name, cell] for name, cell in [*use, *paid] if cell.value is not None]
    if more:
        tables.append(Table(caption="Efficiency and cost", head=("", "Value"), rows=more))
    return Section(anchor="rates", title="Rates", tables=tables) if tables else None


def seconds(report: Report) -> Section | None:
    """Returns the section of times: the parts of the wall time, and the busy time of each step."""
    rows = _present(report, [(f"seconds.{key}", name, "seconds") for key, name in _SECONDS])
    tables = [Table(caption="Time on the clock", head=("", "Time"), rows=rows)] if rows else []
    steps = mapping(at(report, "seconds.steps"))
    ordered = [step for step in _STEPS if step in steps] + [step for step in steps if step not in _STEPS]
    for caption, chosen in (
        ("Busy time of each step, summed over all processes", [step for step in ordered if step not in _WAITING]),
        ("Time spent waiting, summed over all that waits side by side", [step for step in ordered if step in _WAITING]),
    ):
        cells = [Figure(f"seconds.steps.{step}", number(steps[step]), "seconds") for step in chosen]
        bars = shares(cell.value for cell in cells)
        listed: list[list[Cell]] = [
            [text(step), cell, bar] for step, cell, bar in zip(chosen, cells, bars, strict=True)
        ]
        if listed:
            tables.append(Table(caption=caption, head=("Step", "Time", ""), rows=listed))
    return Section(anchor="time", title="Where the time went", tables=tables) if tables else None


def failures(report: Report) -> Section | None:
    """Returns the section of failed records by code, with examples."""
    run, output = (mapping(at(report, f"{part}.failed_by_code")) for part in ("run", "output"))
    codes = list(dict.fromkeys([*run, *output]))
    tables = []
    if codes:
        # A code holds dots, so that `at` cannot look it up as a path.
        own = [Figure(f"run.failed_by_code.{code}", number(run.get(code))) for code in codes]
        whole = [Figure(f"output.failed_by_code.{code}", number(output.get(code))) for code in codes]
        bars = shares(cell.value for cell in own)
        rows: list[list[Cell]] = [
            [text(code), here, there, bar] for code, here, there, bar in zip(codes, own, whole, bars, strict=True)
        ]
        head = ("Code", "This run", "Whole output", "")
        tables.append(Table(caption="Failed records by code", head=head, rows=rows))
    for entry in sequence(at(report, "failures")):
        examples = [mapping(example) for example in sequence(at(entry, "examples"))]
        if examples:
            listed: list[list[Cell]] = [
                [text(at(each, "image_id")), text(at(each, "error_message"))] for each in examples
            ]
            caption = f"Examples of {text(at(entry, 'code'))}"
            tables.append(Table(caption=caption, head=("Image", "Message"), rows=listed))
    note = "Every failed record has its row, with code and message."
    return Section(anchor="failures", title="Failures", note=note, tables=tables) if tables else None


def shards(report: Report) -> Section | None:
    """Returns the section of the slowest shards."""
    found = [mapping(entry) for entry in sequence(at(report, "shards"))]
    bars = shares(number(at(entry, "seconds")) for entry in found)
    rows: list[list[Cell]] = [
        [
            text(at(entry, "shard")),
            *_figures(entry, f"shards.{index}.", ("images", "count"), ("seconds", "seconds")),
            bar,
        ]
        for index, (entry, bar) in enumerate(zip(found, bars, strict=True))
    ]
    table = Table(caption="Shards that took longest", head=("Shard", "Images", "Time", ""), rows=rows)
    return Section(anchor="shards", title="Slowest shards", tables=[table]) if rows else None


def processes(report: Report) -> Section | None:
    """Returns the section of processes, with their busy times and Ray's figures."""
    found = [mapping(entry) for entry in sequence(at(report, "processes"))]
    wanted: tuple[tuple[str, Kind], ...] = (("images", "count"), ("busy_s", "seconds"), ("busy_share", "share"))
    rows: list[list[Cell]] = []
    for index, entry in enumerate(found):
        cells = _figures(entry, f"processes.{index}.", *wanted)
        rows.append([text(at(entry, "process")), text(at(entry, "step")), *cells, shares([1.0, cells[-1].value])[1]])
    head = ("Process", "Step", "Images", "Busy", "Busy share", "")
    tables = [Table(caption="Processes and how busy they were", head=head, rows=rows)] if rows else []
    tables += _operators(report)
    return Section(anchor="processes", title="Processes", tables=tables) if tables else None


def _operators(report: Report) -> list[Table]:
    """Returns the tables of Ray's own figures."""
    wanted: tuple[tuple[str, Kind], ...] = (
        ("tasks", "count"),
        ("failed_tasks", "count"),
        ("scheduling_s", "seconds"),
        ("held_back_s", "seconds"),
        ("output_held_back_s", "seconds"),
    )
    found = [mapping(entry) for entry in sequence(at(report, "ray.operators"))]
    rows: list[list[Cell]] = [
        [text(at(entry, "name")), *_figures(entry, f"ray.operators.{index}.", *wanted)]
        for index, entry in enumerate(found)
    ]
    tables = []
    if rows:
        head = ("Operator", "Tasks", "Failed for good", "Waiting to begin", "Held back", "Output unfetched")
        caption = "Ray's own figures of its operators; tasks that came to nothing are in them"
        tables.append(Table(caption=caption, head=head, rows=rows))
    wanted_bytes: list[tuple[str, str, Kind]] = [
        ("ray.spilled_bytes", "Spilled to disks", "bytes"),
        ("ray.restored_bytes", "Read back", "bytes"),
    ]
    spilled = _present(report, wanted_bytes)
    if spilled:
        tables.append(Table(caption="Ray's object stores", head=("", "Value"), rows=spilled))
    return tables


def account(report: Report) -> Section | None:
    """Returns the section of sums over this run and over the whole output."""
    rows: list[list[Cell]] = []
    for key, name, kind in _ACCOUNT:
        cells = [figure(report, f"{part}.{key}", kind) for part in ("run", "output")]
        if any(cell.value is not None for cell in cells):
            rows.append([name, *cells])
    tables = []
    if rows:
        tables.append(Table(caption="Listed = ok + failed", head=("", "This run", "Whole output"), rows=rows))
    work = _present(report, [(f"work.{key}", name, kind) for key, name, kind in _WORK])
    work += _present(report, [("passes", "Passes", "count")])
    if at(report, "work") is None:
        work += _present(report, [("replayed_chunks", "Chunks done again", "count")])
    if work:
        tables.append(Table(caption="Work", head=("", "Value"), rows=work))
    return Section(anchor="account", title="The account", tables=tables) if tables else None


def configuration(report: Report) -> Section | None:
    """Returns the section of settings: the identity of the output, and the actors of this run."""
    tables = [
        Table(caption=caption, head=("Setting", "Value"), rows=rows)
        for name, caption in (("identity", "Identity of the output"), ("actors", "Actors of this run"))
        if (rows := _settings(mapping(at(report, name)), name))
    ]
    return Section(anchor="configuration", title="Configuration", tables=tables) if tables else None


def versions(report: Report) -> Section | None:
    """Returns the section of the versions of Python and of packages."""
    rows: list[list[Cell]] = [[text(name), text(version)] for name, version in mapping(at(report, "versions")).items()]
    table = Table(caption="Versions of Python and packages", head=("Package", "Version"), rows=rows)
    return Section(anchor="versions", title="Versions", tables=[table]) if rows else None


def _present(report: Report, wanted: list[tuple[str, str, Kind]]) -> list[list[Cell]]:
    cells = [(name, figure(report, field, kind)) for field, name, kind in wanted]
    return [[name, cell] for name, cell in cells if cell.value is not None]


def _figures(entry: Report, prefix: str, *wanted: tuple[str, Kind]) -> list[Figure]:
    return [figure(entry, key, kind, prefix=prefix) for key, kind in wanted]


def _settings(tree: Report, path: str, name: str = "") -> list[list[Cell]]:
    """Returns one row for each key and value of nested settings; an inner key is shown as a dotted path."""
    rows: list[list[Cell]] = []
    for key, value in tree.items():
        inner = f"{name}.{key}" if name else str(key)
        if isinstance(value, Mapping) and value and inner.count(".") < 4:
            rows += _settings(value, path, inner)
        else:
            found = number(value)
            rows.append([text(inner), text(value) if found is None else Figure(f"{path}.{inner}", found, "setting")])
    return rows
