"""The sentences that an audit collects: disagreements and notes; and the error of an audit that cannot be made."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import duckdb

_SHOWN = 5


class UnusableError(Exception):
    """The inputs or the output cannot be audited, or the arguments make no sense; the message gives the reason."""


@dataclass(slots=True)
class Findings:
    """The sentences of an audit.

    Attributes:
        problems: Sentences about numbers or rows that disagree.
        notes: Sentences about differences that are allowed, and about numbers that cannot be counted independently.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, sentences: Iterable[str], total: int | None = None, *, is_problem: bool = True) -> None:
        """Adds sentences of one kind: the first few, and the number of the others.

        Args:
            total: Number of all sentences of the kind, if `sentences` has only the first ones; None counts `sentences`.
            is_problem: True adds to the problems, False to the notes.
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
        """Runs a query and adds the sentences in its column `sentence`; only the first few sentences are fetched."""
        database.execute(f"CREATE OR REPLACE TEMP TABLE found AS {query}", parameters)
        counted = database.execute("SELECT count(*) FROM found").fetchone()
        sentences = database.execute(f"SELECT sentence FROM found ORDER BY sentence LIMIT {_SHOWN}").fetchall()
        self.add(
            (sentence for (sentence,) in sentences), None if counted is None else counted[0], is_problem=is_problem
        )
