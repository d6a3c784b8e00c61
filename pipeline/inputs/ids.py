"""The ids of records: `image_id` is the URI of a loose image, or `<shard>#<key>` for a record of a shard.

URIs and keys may hold a `#` too. Under `FIRST_RULES` the loose image `a.tar#b.jpg` therefore has the id of the member
`b.jpg` of `a.tar`. Under later rules, no two records have one id. An id is taken apart in one way only: at the first
`#` behind the ending of a shard, else at the first `#`, and an id without `#` is a URI. An id that would be taken apart
in a wrong way has another form: it begins with `escaped:`, and in the URI `%` is `%25` and `#` is `%23`. No URI begins
with that word. All other ids are the same under all rules.
"""

import re
from urllib.parse import unquote

from pipeline.inputs.rules import FIRST_RULES

_ESCAPED = "escaped:"
# The endings belong to the version of the rules: a new format's ending would change ids.
_SHARD_ENDING = re.compile(r"\.(?:tar|tar\.gz|tgz|parquet)#", re.IGNORECASE)


def object_id(uri: str, rules: int) -> str:
    """Returns the id of a loose image, or of the rest of a shard that breaks off."""
    return uri if rules == FIRST_RULES or "#" not in uri else _escaped(uri)


def record_id(shard: str, key: str | None, rules: int) -> str:
    """Returns the id of a record of a shard; a record without a key stands for the rest of the shard."""
    if key is None:
        return object_id(shard, rules)
    plain = f"{shard}#{key}"
    return plain if rules == FIRST_RULES or _place_of_key(plain) == len(shard) else f"{_escaped(shard)}#{key}"


def loose_uri(image_id: str) -> str:
    """Returns the URI of a loose image with this id."""
    return unquote(image_id.removeprefix(_ESCAPED)) if image_id.startswith(_ESCAPED) else image_id


def _place_of_key(plain: str) -> int:
    ending = _SHARD_ENDING.search(plain)
    return plain.index("#") if ending is None else ending.end() - 1


def _escaped(uri: str) -> str:
    return _ESCAPED + uri.replace("%", "%25").replace("#", "%23")
