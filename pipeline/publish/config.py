"""Settings of the sink step."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from model.network.config import PVTv2Config
from pipeline.store.storage import StoreConfig


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """Where and as what slices are published.

    Attributes:
        output: canonical URI of the output folder.
        schema: columns of the files, in order.
        identity: digest of the output's identity.
        network: of the model; it says what the rows of an older file cost.
        may_write: called before every PUT; raises if this run has lost the right to write.
    """

    output: str
    store: StoreConfig
    schema: pa.Schema
    identity: str
    run_id: str
    network: PVTv2Config
    may_write: Callable[[], None] | None = None
