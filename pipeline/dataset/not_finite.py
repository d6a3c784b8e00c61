"""Rows whose score is not finite: earlier versions published such rows as `ok`. For a data set, these rows have failed.

DuckDB sorts NaN above every number, so that NaN would pass every threshold.
"""

import logging

from pipeline.chunks.failures import ErrorCode
from pipeline.dataset.database import Database

logger = logging.getLogger(__name__)

# `before` has no column `status`, and its decisions stay, so that the changes of these rows are found.
_FAILED = """
    UPDATE {} SET status = 'failed', error_code = $code, label_id = NULL, label = NULL, score = NULL
    WHERE NOT isfinite(score)
"""
_FAILED_BEFORE = "UPDATE before SET error_code = $code, model_label = NULL, score = NULL WHERE NOT isfinite(score)"


def fail_not_finite(database: Database, table: str) -> int:
    """Makes failed rows, `infer.not_finite`, of a table's rows whose score is not finite; returns their number.

    Args:
        database: Database of the table.
        table: Name of a table of predictions with the columns `status`, `error_code`, `label_id`, `label` and `score`.
    """
    ((count,),) = database.rows(f"SELECT count(*) FROM {table} WHERE NOT isfinite(score)")
    if count:
        logger.warning(
            "rows.not_finite table=%s rows=%d: their scores are no numbers; they count as failed", table, count
        )
        database.run(_FAILED.format(table), {"code": str(ErrorCode.INFER_NOT_FINITE)})
    return int(count)


def forget_not_finite(database: Database) -> None:
    """Removes predictions whose score is not finite from the table `before`, the data set of an earlier run."""
    database.run(_FAILED_BEFORE, {"code": str(ErrorCode.INFER_NOT_FINITE)})
