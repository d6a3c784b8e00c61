"""Copies packs to the memory from which graphs read; the bytes of a pack are copied while the pack before it runs.

A pack passes through one of two slots. A slot is page-locked memory on the host, which the copy engine of a GPU reads
by itself, and as much memory on the device. From the slot, the stream that runs packs copies the pack to the memory
from which all graphs read; this copy within the device takes microseconds. Events prevent that memory is overwritten
before the memory was read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.gpu.tables import Capacity, Sizes, Tables, table_length, view_tables, write_tables
from model.network.config import PVTv2Config

_ALIGN_BYTES = 256


class Copy(NamedTuple):
    """The events before and after a pack's copy to the device, from which the seconds of the copy are read."""

    begun: torch.cuda.Event
    done: torch.cuda.Event


class _Slot:
    """Memory for a pack on the host and on the device.

    Attributes:
        host: Page-locked memory on the host.
        device: Memory on the device.
        sent: Event after the copy from the host to the device.
        taken: Event after the copy from the slot to the memory from which graphs read.
    """

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self.host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self.device = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        # A wait for an event that was never recorded ends at once.
        self.sent, self.taken = torch.cuda.Event(), torch.cuda.Event()


class Upload:
    """The fixed memory on the device for tables and pixels of one pack, and the slots through which packs reach it."""

    def __init__(self, config: PVTv2Config, largest: Capacity, device: torch.device) -> None:
        """Allocates memory for packs up to the largest capacity."""
        self._config = config
        num_bytes = _table_bytes(largest) + 3 * largest.pixels
        self._static = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self._slots = [_Slot(num_bytes, device) for _ in range(2)]
        self._turn = 0
        self._copies = torch.cuda.Stream(device)
        # Work on this memory may still be queued on another stream that has freed the memory.
        torch.cuda.synchronize(device)

    def views(self, capacity: Capacity) -> tuple[Tensor, Tables]:
        """Returns the pixels X3 and the tables in the memory from which graphs of a capacity read, as views."""
        start = _table_bytes(capacity)
        pixels_X3 = self._static[start : start + 3 * capacity.pixels].view(-1, 3)
        flat = self._static[: 4 * table_length(capacity)].view(torch.int32)
        return pixels_X3, view_tables(flat, capacity)

    def send(self, images: Sequence[Tensor], sizes: Sizes, capacity: Capacity, stream: torch.cuda.Stream) -> Copy:
        """Queues the copies of a pack; work that is queued on the stream afterwards finds the pack in place.

        Args:
            images: Images HWC: RGB, uint8. Images in the host's memory are copied before `send` returns.
            sizes: (height, width) of each image.
            capacity: Capacity into which the images fit.
            stream: The current stream, on which all packs run.
        """
        slot = self._slots[self._turn]
        self._turn = 1 - self._turn
        slot.sent.synchronize()
        write_tables(self._config, sizes, capacity, slot.host[: 4 * table_length(capacity)].view(torch.int32).numpy())
        tables_end = end = _table_bytes(capacity)
        is_on_host = not any(image.is_cuda for image in images)
        if is_on_host:
            end = _copy(images, slot.host, end)
        # Each pack gets new events, since the times of a pack are read when its slot may already hold another pack.
        copy = Copy(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        slot.sent = copy.done
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(slot.taken)
            copy.begun.record(self._copies)
            slot.device[:end].copy_(slot.host[:end], non_blocking=True)
            copy.done.record(self._copies)
        stream.wait_event(slot.sent)
        self._static[:end].copy_(slot.device[:end])
        slot.taken.record(stream)
        if not is_on_host:
            _copy(images, self._static, tables_end)
        return copy


def _copy(images: Sequence[Tensor], to: Tensor, start: int) -> int:
    """Copies the pixels of images into `to`, from byte `start` on, and returns the position of the byte after them."""
    for image_HWC in images:
        stop = start + image_HWC.numel()
        to[start:stop].view(image_HWC.shape).copy_(image_HWC)
        start = stop
    return start


def _table_bytes(capacity: Capacity) -> int:
    """Returns the number of bytes from the start of the tables to the start of the pixels."""
    return -(-4 * table_length(capacity) // _ALIGN_BYTES) * _ALIGN_BYTES
