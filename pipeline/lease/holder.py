"""Who holds a lease: one process, told apart from every other that ever was, and whether it is surely dead."""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Set by Ray in the driver of a submitted job.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_ENDED_STATES = "ZX"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One process.

    Attributes:
        host: the machine's name, for people.
        boot_id: which boot of which machine; None where Linux does not tell.
        pid_namespace: where `pid` is valid: containers on one machine have equal boots and other processes.
        started_ticks: when the process started, in clock ticks since the boot; tells it from a later one of its number.
        submission_id: of the submitted Ray job whose driver it is.
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
        """The reverse of `dataclasses.asdict`; fields that a later version added are passed over.

        Raises:
            KeyError, TypeError, ValueError: the dictionary describes no holder.
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
        """True if the process lived where this one does and is gone; False if it lives, or cannot be seen from here."""
        place = (self.boot_id, self.pid_namespace)
        if None in (*place, self.started_ticks) or place != (_boot_id(), _pid_namespace()) or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        # Some machines hide the processes of other users: one that lives and cannot be seen is not dead.
        seen = _state_and_start(self.pid)
        return seen is not None and (seen[0] in _ENDED_STATES or seen[1] != self.started_ticks)


def this_process() -> Holder:
    """The process that asks."""
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
    """State letter and start in ticks of a process; None if it cannot be seen."""
    try:
        # The name comes second, in parentheses, and may hold both spaces and parentheses.
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
