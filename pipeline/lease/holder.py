"""The holder of a lease: the identity of one process, and the test whether that process is dead."""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Ray sets this variable in the driver of a submitted job.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_ENDED_STATES = "ZX"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The identity of one process, which no later process shares.

    Attributes:
        host: Name of the machine, for people.
        pid: Process id.
        boot_id: Id that Linux gives to each boot of the machine; None if the id cannot be read.
        pid_namespace: Namespace in which `pid` is valid; None if the namespace cannot be read. Containers on one
            machine share a boot, but not a namespace.
        started_ticks: Start of the process in clock ticks since the boot, which differs from the start of a later
            process with the same id; None if the start cannot be read.
        submission_id: Submission id of the Ray job if the process is the driver of a submitted job; else None.
    """

    host: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    started_ticks: int | None
    submission_id: str | None

    def __str__(self) -> str:
        job = f", Ray job {self.submission_id}" if self.submission_id else ""
        return f"host {self.host}, pid {self.pid}{job}"

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> "Holder":
        """Returns the holder that a dictionary of `dataclasses.asdict` describes; fields of later versions are ignored.

        Raises:
            KeyError, TypeError, ValueError: The dictionary does not describe a holder.
        """
        ticks = fields["started_ticks"]
        return Holder(
            host=str(fields["host"]),
            pid=int(fields["pid"]),
            boot_id=fields["boot_id"],
            pid_namespace=fields["pid_namespace"],
            started_ticks=None if ticks is None else int(ticks),
            submission_id=fields["submission_id"],
        )

    def is_surely_dead(self) -> bool:
        """Returns True if the process ran on this machine and is gone; False if the process lives or cannot be seen."""
        place = (self.boot_id, self.pid_namespace)
        if None in (*place, self.started_ticks) or place != (_boot_id(), _pid_namespace()) or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        # Some machines hide the processes of other users, so a process that cannot be seen is not taken for dead.
        seen = _state_and_start(self.pid)
        return seen is not None and (seen[0] in _ENDED_STATES or seen[1] != self.started_ticks)


def current_process() -> Holder:
    """Returns the current process as a holder."""
    seen = _state_and_start(os.getpid())
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        started_ticks=None if seen is None else seen[1],
        submission_id=_submission_id(),
    )


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """Returns the state letter of a process and its start in ticks; None if the process cannot be seen."""
    try:
        # The second field is the name in parentheses, which may hold spaces and parentheses.
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return after_name[0], int(after_name[19])
    except (OSError, IndexError, ValueError):
        return None


def _submission_id() -> str | None:
    try:
        found = json.loads(os.environ[_JOB_CONFIG])["metadata"]["job_submission_id"]
    except (KeyError, TypeError, ValueError):
        return None
    return str(found)
