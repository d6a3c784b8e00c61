"""The version of the rules of reading: which names are images, what counts as a record, and what ids and labels are.

Slices are cut by counting records. An output that was begun under one version would lose and double rows under another
version, without an error. So the version is part of the output's identity, and an output keeps its version.

| version | |
| --- | --- |
| 1 | outputs whose identity names no version |
| 2 | new outputs |
"""

RULES = 2
"""Version of new outputs."""

FIRST_RULES = 1
"""Version of outputs whose identity names no version."""
