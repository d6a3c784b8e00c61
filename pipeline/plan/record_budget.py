"""Records that a plan may still take: `--limit` bounds the whole output, `--max-images` bounds this run."""

from collections.abc import Iterable

from pipeline.plan.planned_shard import PlannedShard


class RecordBudget:
    """The numbers of records that both limits still allow while a plan is made.

    Args:
        limit: number of records that the output may hold; None for any number.
        max_images: number of records after which this run reads no further shard; None for any number.

    Attributes:
        images_left: number of records that this run may still begin to read; None for any number.
    """

    def __init__(self, limit: int | None, max_images: int | None) -> None:
        self.images_left = max_images
        self._limit = self._limit_left = limit
        self._taken_earlier: dict[str, int] = {}

    def deduct(self, planned: Iterable[PlannedShard]) -> None:
        """Subtracts the records of all shards in earlier plans from the limit."""
        for shard in planned:
            self._taken_earlier[shard.hash16] = shard.num_records or 0
        if self._limit is not None:
            self._limit_left = max(0, self._limit - sum(self._taken_earlier.values()))

    def at_most(self, hash16: str) -> int | None:
        """Returns the number of records of a shard that the limit allows; None if there is no limit."""
        return self._taken_earlier.get(hash16, self._limit_left)

    def take(self, hash16: str, wanted: int) -> None:
        """Subtracts records of a shard from the limit, unless an earlier plan has the shard."""
        if self._limit_left is not None and hash16 not in self._taken_earlier:
            self._limit_left -= min(wanted, self._limit_left)

    def take_file(self) -> bool:
        """Subtracts one loose file from the limit; returns False if the limit is reached."""
        if self._limit_left is None:
            return True
        is_allowed = self._limit_left > 0
        self._limit_left -= is_allowed
        return is_allowed

    @property
    def is_spent(self) -> bool:
        """True if this run may read no further shard."""
        return self.images_left == 0

    def spend(self, images: int) -> None:
        """Reduces `images_left` by a number of records that this run will read."""
        if self.images_left is not None:
            self.images_left = max(0, self.images_left - images)
