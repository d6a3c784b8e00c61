"""The printed result of an audit: the counted numbers beside the numbers that the job reported."""

from collections.abc import Mapping, Sequence

from infra.audit.account import Line
from infra.audit.findings import Findings


def printed(output: str, tables: Mapping[str, Sequence[Line]], findings: Findings) -> str:
    """Returns the printed text: the tables, then the sentences of the findings, then the verdict."""
    blocks = [f"audit of {output}"]
    blocks += [_table(title, lines) for title, lines in tables.items()]
    if findings.notes:
        blocks.append("\n".join(["To know:", *(f"  {_visible(sentence)}" for sentence in findings.notes)]))
    if findings.problems:
        blocks.append("\n".join(["What disagrees:", *(f"  {_visible(sentence)}" for sentence in findings.problems)]))
    blocks.append("Something disagrees." if findings.problems else "All of it agrees.")
    return "\n\n".join(blocks)


def _visible(sentence: str) -> str:
    """Returns a sentence whose control characters are escaped, since a name may hold commands for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)


def _table(title: str, lines: Sequence[Line]) -> str:
    is_reported = any(line.reported is not None for line in lines)
    rows = [_row(title, "audited", "report" if is_reported else "", "")]
    for line in lines:
        reported = "" if line.reported is None else "none" if line.reported < 0 else f"{line.reported:,}"
        rows.append(_row("  " + line.what, f"{line.audited:,}", reported, line.verdict))
    return "\n".join(rows)


def _row(what: str, audited: str, reported: str, mark: str) -> str:
    return f"{what:<34}{audited:>20}{reported:>20}  {mark}".rstrip()
