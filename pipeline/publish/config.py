"""Settings of the sink step."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from model.network.config import PVTv2Config
from pipeline.store.store_path import StorePath


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """Settings of the publication of slices.

    Attributes:
        output: The output folder.
        schema: Columns of the files, in order.
        identity: Digest of the output's identity.
        run_id: Name of the run.
        network: Shape of the network, from which the cost of the rows in an older file is computed.
        may_write: Function that is called before every PUT, and raises an error if this run has lost the right to
            write.
    """

    output: StorePath
    schema: pa.Schema
    identity: str
    run_id: str
    network: PVTv2Config
    may_write: Callable[[], None] | None = None
