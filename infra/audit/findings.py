"""What an audit came upon: disagreements, and what else a reader should know; and why an audit cannot be made."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import duckdb

_SHOWN = 5


class UnusableError(Exception):
    """Inputs or an output that cannot be audited, or arguments that make no sense; the message says which and why."""


@dataclass(slots=True)
class Findings:
    """One sentence each.

    Attributes:
        problems: what does not agree.
        notes: what is as it may be, or cannot be counted independently.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, sentences: Iterable[str], total: int | None = None, *, is_problem: bool = True) -> None:
        """Takes sentences of one kind; of many the first few, and how many there are.

        Args:
            total: how many there are, if these are only the first; None counts them.
        """
        found = list(sentences)
        left = (len(found) if total is None else total) - _SHOWN
        if left > 0:
            found = [*found[:_SHOWN], f"... and {left:,} more like the last"]
        (self.problems if is_problem else self.notes).extend(found)

    def ask(
        self, database: duckdb.DuckDBPyConnection, query: str, parameters: list[Any] | None = None, *,
        is_problem: bool = True,
    ) -> None:  # fmt: skip
        """Takes what a query finds: it gives a column `sentence`, and of millions only the first are fetched."""
        database.execute(f"CREATE OR REPLACE TEMP TABLE found AS {query}", parameters)
        counted = database.execute("SELECT count(*) FROM found").fetchone()
        sentences = database.execute(f"SELECT sentence FROM found ORDER BY sentence LIMIT {_SHOWN}").fetchall()
        self.add(
            (sentence for (sentence,) in sentences), None if counted is None else counted[0], is_problem=is_problem
        )
