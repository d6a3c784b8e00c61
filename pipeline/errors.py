"""The errors that stop a job, as one hierarchy of classes, each with its exit code.

PipelineError            exit 1
+-- ConfigError          exit 2   a flag, or a combination of flags, that cannot work
+-- InputError           exit 3   inputs that are missing, empty or cannot be listed
+-- WeightsError         exit 4   a model that cannot be loaded
+-- OutputError          exit 5   an output that belongs to something else, or cannot be written
+-- TooManyFailedError   exit 6   more failed records than --max-failed-fraction allows
+-- AccountsError        exit 7   listed records and published rows do not agree
+-- DriftError           exit 8   labels or scores of new images differ from those of earlier images
+-- IncompleteError      exit 9   the run ended before everything was published
|   +-- StoppedError              because a signal asked the run to end
|   +-- LeaseLostError            because the run lost the right to write into the output
|   +-- CollectorsGoneError       because a process that writes rows does not answer
+-- LeaseHeldError       exit 10  nothing was done: another run holds the output

`jobs/submit.py` and `jobs/run_rayjob.py` start jobs on a cluster; their own `EXIT_CODES` say with which codes they end.
"""

EXIT_CODES = """exit codes:
  0 done                          5 output: belongs to another job, or cannot be written
  1 internal error                6 too many failed records (--max-failed-fraction)
  2 bad configuration             7 accounts do not close
  3 input missing or empty        8 new images are not like those before (label_dataset)
  4 model or weights              9 incomplete: stopped, stalled, no room, bounded; the same command continues
                                 10 another run holds the output (--wait-for-lease-s)"""
"""The exit codes, as the `--help` of a job shows them."""


class PipelineError(Exception):
    """An error that stops the job. The user sees the message, which says what to do, without a traceback."""

    exit_code = 1


class ConfigError(PipelineError):
    """A flag, or a combination of flags, that cannot work."""

    exit_code = 2


class InputError(PipelineError):
    """Inputs that are missing, empty or cannot be listed."""

    exit_code = 3


class WeightsError(PipelineError):
    """A model that cannot be loaded: its weights, its configuration, or the names of its classes."""

    exit_code = 4


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
    """Labels or scores of new images differ from those of earlier images; the data set is published all the same."""

    exit_code = 8


class IncompleteError(PipelineError):
    """The run stopped before everything was published; the same command continues the work."""

    exit_code = 9


class StoppedError(IncompleteError):
    """A signal asked the run to end."""


class CollectorsGoneError(IncompleteError):
    """A process that writes rows does not answer, for example because the cluster has lost its workers."""


class LeaseLostError(IncompleteError):
    """The run lost the right to write into the output, and stopped writing.

    The exit code is 9, as for every other early end, and not 10 as for `LeaseHeldError`: the published files are whole,
    and the same command continues the work. If another run still holds the output, that command ends with
    `LeaseHeldError`.
    """


class LeaseHeldError(PipelineError):
    """Another run holds the output, and this run did nothing."""

    exit_code = 10
