"""What can go wrong in the model package: two errors, both a `ValueError`, whose messages say what to do.

ValueError
+-- CheckpointError   weights or a configuration that cannot be loaded
+-- LabelsError       a file of labels that does not name every class once
"""


class CheckpointError(ValueError):
    """Weights or a configuration that cannot be loaded; the message says what to do."""


class LabelsError(ValueError):
    """A file of labels that does not name every class once; the message says where."""
