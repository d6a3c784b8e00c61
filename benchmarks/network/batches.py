"""Batches of images of one size, for a network that needs them, and the fastest way to run each batch."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Size = tuple[int, int]
Setting = TypeVar("Setting", bound=Hashable)

# The images of a batch have at most as many pixels as four photos of 500x375; larger batches gained nothing on CPUs.
MAX_BATCH_PX = 4 * 500 * 375


def batch_sizes(sizes: Sequence[Size]) -> list[int]:
    """Returns the batch sizes to try: powers of two, up to what the most frequent image size allows.

    Args:
        sizes: (height, width) of each image, in pixels; not empty.
    """
    (height, width), count = commonest(sizes)
    most = min(count, max(1, MAX_BATCH_PX // (height * width)))
    return [1 << power for power in range(most.bit_length())]


def commonest(sizes: Sequence[Size]) -> tuple[Size, int]:
    """Returns the most frequent size and its number of images; if several sizes are as frequent, the first of them."""
    return Counter(sizes).most_common(1)[0]


def equal_batches(sizes: Sequence[Size], most: int) -> list[list[int]]:
    """Returns the indexes of the images of each batch; a batch has at most `most` images, all of one size."""
    groups: dict[Size, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def fastest(seconds: Mapping[tuple[int, Setting], float]) -> tuple[int, dict[int, Setting]]:
    """Returns the fastest batch size, and the fastest setting for each batch size that was tried.

    Args:
        seconds: Seconds for one image, by batch size and setting.
    """
    settings: dict[int, Setting] = {}
    for (number, setting), taken in seconds.items():
        if number not in settings or taken < seconds[number, settings[number]]:
            settings[number] = setting
    return min(settings, key=lambda number: seconds[number, settings[number]]), settings


def setting_for(number: int, settings: Mapping[int, Setting]) -> Setting:
    """Returns the setting for a batch of `number` images.

    The setting is that of the largest batch size that was tried and is not larger than `number`.
    """
    return settings[max(tried for tried in settings if tried <= number)]
