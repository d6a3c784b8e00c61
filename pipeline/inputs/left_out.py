"""Says which names were passed over, and by which flags they are read."""

import shlex
from collections.abc import Mapping

from pipeline.chunks.passed_over import NO_ENDING, OTHER_ENDINGS
from pipeline.inputs.formats import format_of
from pipeline.inputs.names import image_endings

# Number of endings that a sentence names.
_MOST_NAMED = 5


def unknown_endings(counts: Mapping[str, int], rules: int) -> dict[str, int]:
    """Returns the numbers of names by ending, without the endings of images and shards; the largest number first."""
    known = image_endings(rules)
    unknown = {
        ending: number
        for ending, number in counts.items()
        if ending in (NO_ENDING, OTHER_ENDINGS) or (ending.startswith(".") and not _is_known(ending, known))
    }
    return dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0])))


def how_to_include(unknown: Mapping[str, int]) -> str:
    """Returns a sentence with the numbers of names by ending, and with the flags that read these names as images.

    Args:
        unknown: the result of `unknown_endings`, not empty.
    """
    named = [ending for ending in unknown if ending.startswith(".")][:_MOST_NAMED]
    others = sum(n for ending, n in unknown.items() if ending not in named and ending != NO_ENDING)
    parts = [f"{unknown[ending]} x {ending}" for ending in named]
    parts += [f"{unknown[NO_ENDING]} without ending"] if NO_ENDING in unknown else []
    parts += [f"{others} with other endings"] if others else []
    total = sum(unknown.values())
    flags = [f"--include-also {shlex.quote(ending_glob(ending))}" for ending in named]
    how = f"with {' '.join(flags)}" if flags else "with --include-also and a glob of their names"
    return (
        f"{total} {'file' if total == 1 else 'files'} passed over: {', '.join(parts)}. If these are images, repeat the "
        f"command {how}, and with another --output"
    )


def ending_glob(ending: str) -> str:
    """Returns the glob of all names with an ending, which begins with a dot."""
    return "*" + "".join(f"[{letter}]" if letter in "*?[" else letter for letter in ending)


def glob_in_any_case(ending: str) -> str:
    """Returns the glob of all names with an ending of ASCII letters and digits, in upper or lower case."""
    return "*" + "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in ending)


def _is_known(ending: str, known: frozenset[str]) -> bool:
    # The last part alone of an ending such as `.tar.gz` was counted.
    return ending in known or ending == ".gz" or format_of(ending) is not None
