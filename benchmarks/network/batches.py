"""The batches that a network can make which wants images of one size, and the fastest way to run each."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Size = tuple[int, int]
Setting = TypeVar("Setting", bound=Hashable)

# Images of one batch have at most as many pixels as four photos of 500x375: past it CPUs gained nothing.
MAX_BATCH_PX = 4 * 500 * 375


def batch_sizes(sizes: Sequence[Size]) -> list[int]:
    """Numbers of images to try in a batch: powers of two, up to what the commonest size allows.

    Args:
        sizes: (height, width) of each image, in pixels; not empty.
    """
    (height, width), count = commonest(sizes)
    most = min(count, max(1, MAX_BATCH_PX // (height * width)))
    return [1 << power for power in range(most.bit_length())]


def commonest(sizes: Sequence[Size]) -> tuple[Size, int]:
    """The size that most images have, and how many have it; of several the first."""
    return Counter(sizes).most_common(1)[0]


def equal_batches(sizes: Sequence[Size], most: int) -> list[list[int]]:
    """Indexes of the images of each batch: all of one size, and at most `most` of them."""
    groups: dict[Size, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def fastest(seconds: Mapping[tuple[int, Setting], float]) -> tuple[int, dict[int, Setting]]:
    """The number of images to a batch, and the setting for batches of each number that was tried.

    Args:
        seconds: for one image, by number of images to a batch and setting.
    """
    settings: dict[int, Setting] = {}
    for (number, setting), taken in seconds.items():
        if number not in settings or taken < seconds[number, settings[number]]:
            settings[number] = setting
    return min(settings, key=lambda number: seconds[number, settings[number]]), settings


def setting_for(number: int, settings: Mapping[int, Setting]) -> Setting:
    """The setting for a batch of `number` images: that of the largest batch that was tried and is no larger."""
    return settings[max(tried for tried in settings if tried <= number)]
