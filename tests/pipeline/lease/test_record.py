"""The lease object: what it says to this version, and what is none."""

import json
from datetime import datetime
from typing import Any

import pytest

from pipeline.lease.record import LeaseRecord
from tests.support.leases import foreign


def test_a_lease_with_fields_of_a_later_version_is_understood() -> None:
    fields = json.loads(foreign().to_json())
    fields["later"], fields["holder"]["later"] = 1, 2
    assert LeaseRecord.from_json(json.dumps(fields).encode()) == foreign(
        since=datetime.fromisoformat(fields["since"]), renewed_at=datetime.fromisoformat(fields["renewed_at"])
    )


@pytest.mark.parametrize("seconds", [0, -1, "nan", "inf"])
def test_a_lease_that_never_runs_out_or_has_none_to_run_out_is_none(seconds: Any) -> None:
    fields = json.loads(foreign().to_json()) | {"expires_after_s": seconds}
    with pytest.raises(ValueError, match="expires_after_s"):
        LeaseRecord.from_json(json.dumps(fields).encode())
