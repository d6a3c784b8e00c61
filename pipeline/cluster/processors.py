"""Divides the processors of the cluster among the steps, with pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import ConfigError

# Ray fuses neighbouring steps that ask for equal resources, so no two steps ask for the same share. Shares are
# bookkeeping and no limits: an actor on CPUs computes with one thread, but its share leaves room for the steps that
# feed it.
_READ_CPUS = 0.25
_DECODE_CPUS = {"cpu": 0.5, "cuda": 1.0}
_ACTOR_CPUS = {"cpu": 0.45, "cuda": 0.2}
# Tolerance in CPUs, because shares are rounded to four digits.
_ROUNDING = 1e-2


@dataclass(frozen=True, kw_only=True)
class Processors:
    """The processors that each step asks Ray for.

    Attributes:
        device: Device of the network: `cpu` or `cuda`.
        num_actors: (smallest, largest) number of infer actors.
        actor_cpus, actor_gpus: Processors of each infer actor.
        read_cpus, decode_cpus: CPUs of each read task and of each decode task.
        num_collectors: Number of collectors, which ask for no processors.
        num_cpus: CPUs of the cluster that were divided.
        idle_nodes: Ids of Ray's nodes that have no CPUs, such as a head, and must do no work.
    """

    device: str
    num_actors: tuple[int, int]
    actor_cpus: float
    actor_gpus: float
    read_cpus: float
    decode_cpus: float
    num_collectors: int
    num_cpus: float
    idle_nodes: tuple[str, ...] = ()

    @property
    def nothing(self) -> dict[str, Any]:
        """Ray's options for a task or actor that asks for no processors and may run on all nodes but the idle nodes."""
        if not self.idle_nodes:
            return {"num_cpus": 0}
        return {"num_cpus": 0, "label_selector": {"ray.io/node-id": f"!in({','.join(self.idle_nodes)})"}}

    def describe(self) -> str:
        """Returns the division as one line for the log."""
        fewest, most = self.num_actors
        actors = str(most) if fewest == most else f"{fewest}-{most}"
        gpus = " and 1 GPU" if self.actor_gpus else ""
        return (
            f"read {self.read_cpus} CPU a task, decode {self.decode_cpus} CPU a task, "
            f"{actors} {self.device} actors of {self.actor_cpus} CPU{gpus} each, "
            f"{self.num_collectors} collectors of 0 CPU"
        )

    def fits(self, num_cpus: float, num_gpus: float) -> bool:
        """Returns True if a read task, a decode task and all actors can run at once on so many CPUs and GPUs."""
        most = self.num_actors[1]
        needed_cpus = self.read_cpus + self.decode_cpus + most * self.actor_cpus
        return needed_cpus <= num_cpus + _ROUNDING and most * self.actor_gpus <= num_gpus


def divide_again(
    before: Processors, num_cpus: float, num_gpus: float, idle_nodes: Sequence[str] = ()
) -> Processors | None:
    """Returns a division of a cluster that lost or regained nodes, with as many of the actors as have room.

    Args:
        before: Division when the run began.
        num_cpus, num_gpus: Processors of the cluster now.
        idle_nodes: Ids of nodes that must do no work.

    Returns:
        The division; None if not even one actor has room.
    """
    fewest, most = before.num_actors
    try:
        found = divide_processors(num_cpus, num_gpus, before.device, (1, most), idle_nodes)
    except ConfigError:
        return None
    room = found.num_actors[1]
    return replace(found, num_actors=(min(fewest, room), room), num_collectors=before.num_collectors)


def divide_processors(
    num_cpus: float,
    num_gpus: float,
    device: str,
    num_actors: tuple[int, int] | None,
    idle_nodes: Sequence[str] = (),
) -> Processors:
    """Returns a division of a cluster in which every step can always run at least one task.

    Args:
        num_cpus, num_gpus: Processors of the whole cluster.
        device: `auto`, `cpu` or `cuda`.
        num_actors: (smallest, largest) number of actors; None for one actor on each CPU, or on each GPU.
        idle_nodes: Ids of nodes that must do no work.

    Raises:
        ConfigError: The cluster is too small.
    """
    if num_cpus <= 0:
        raise ConfigError("Ray has no CPUs: none of its nodes is for work yet; start one, or wait until one is up")
    if device == "auto":
        device = "cuda" if num_gpus >= 1 else "cpu"
    if device == "cuda" and num_gpus < 1:
        raise ConfigError("--device cuda: Ray sees no GPU; start it on a machine with one, or use --device cpu")
    # A machine with one CPU still runs one reader, one decoder and one actor at the same time.
    scale = min(1.0, num_cpus / (_READ_CPUS + _DECODE_CPUS[device] + _ACTOR_CPUS[device]))
    read, decode, actor = (share * scale for share in (_READ_CPUS, _DECODE_CPUS[device], _ACTOR_CPUS[device]))
    most_by_cpu = int((num_cpus - read - decode) / actor + 1e-6)
    if device == "cuda":
        wanted = num_actors or (int(num_gpus), int(num_gpus))
        most = min(int(num_gpus), most_by_cpu)
    else:
        wanted = num_actors or (min(int(num_cpus), most_by_cpu) or 1,) * 2
        most = most_by_cpu
    if wanted[0] > most:
        raise ConfigError(
            f"{wanted[0]} {device} actors do not fit: the cluster has {num_cpus:g} CPUs and {num_gpus:g} GPUs, and "
            f"besides the actors one reader and one decoder must run; at most {most} fit (--num-actors)"
        )
    return Processors(
        device=device,
        num_actors=(wanted[0], min(wanted[1], most)),
        actor_cpus=round(actor, 4),
        actor_gpus=1.0 if device == "cuda" else 0.0,
        read_cpus=round(read, 4),
        decode_cpus=round(decode, 4),
        num_collectors=max(1, min(8, round(num_cpus / 8) + 1)),
        num_cpus=num_cpus,
        idle_nodes=tuple(idle_nodes),
    )
