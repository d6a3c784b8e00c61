"""The errors of the model package, whose messages say what to do.

ValueError
+-- CheckpointError   weights or a configuration cannot be loaded
+-- LabelsError       a file of labels does not name every class exactly once
"""


class CheckpointError(ValueError):
    """Weights or a configuration cannot be loaded; the message says what to do."""


class LabelsError(ValueError):
    """A file of labels does not name every class exactly once; the message says where."""
