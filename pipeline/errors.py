"""What can go wrong: one tree of errors that stop a job, and the codes of failed records, which do not.

    PipelineError            exit 1
    +-- ConfigError          exit 2   a flag, or a combination of flags, that cannot work
    +-- InputError           exit 3   inputs that are missing, empty or cannot be listed
    +-- OutputError          exit 5   an output that belongs to something else, or cannot be written
    +-- TooManyFailedError   exit 6   more failed records than --max-failed-fraction allows
    +-- AccountsError        exit 7   listed records and published rows do not agree
    +-- DriftError           exit 8   labels or scores of new images are not like those before
    +-- IncompleteError      exit 9   ended before everything was published
    |   +-- StoppedError              by a signal
    |   +-- LeaseLostError            because the output is no longer this run's
    |   +-- CollectorsGoneError       because nobody is there to write rows
    +-- LeaseHeldError       exit 10  nothing was done: another run holds the output

A model that cannot be loaded is `model.errors.CheckpointError` (exit 4).
"""


class PipelineError(Exception):
    """Stops the job; the message says what to do, and is shown to the user without a traceback."""

    exit_code = 1


class ConfigError(PipelineError):
    """A flag, or a combination of flags, that cannot work."""

    exit_code = 2


class InputError(PipelineError):
    """Inputs that are missing, empty or cannot be listed."""

    exit_code = 3


class OutputError(PipelineError):
    """An output that belongs to something else, or cannot be written."""

    exit_code = 5


class TooManyFailedError(PipelineError):
    """More failed records than `--max-failed-fraction` allows."""

    exit_code = 6


class AccountsError(PipelineError):
    """Listed records and published rows do not agree."""

    exit_code = 7


class DriftError(PipelineError):
    """Labels or scores of new images are not like those before; the data set is published all the same."""

    exit_code = 8


class IncompleteError(PipelineError):
    """Stopped before everything was published; the same command continues."""

    exit_code = 9


class StoppedError(IncompleteError):
    """A signal asked the run to end."""


class CollectorsGoneError(IncompleteError):
    """Nobody is there to write rows, such as where a cluster has lost its workers."""


class LeaseLostError(IncompleteError):
    """The output is no longer this run's; it stopped writing.

    Not an exit code of its own, and not that of `LeaseHeldError`: what was published is whole and the same command
    continues, as after every other end that came early. If another run holds the output then, it is told so.
    """


class LeaseHeldError(PipelineError):
    """Another run holds the output; this one did nothing."""

    exit_code = 10
