"""What a pass says of the blocks that it dropped; the flow itself is run by the tests of the jobs."""

from ray.data.exceptions import SystemException
from ray.exceptions import OutOfDiskError, RayTaskError

from pipeline.flow import Dropped, _dropped

NO_ROOM = Dropped("OutOfDiskError: Local disk is full", for_room=True)


def test_an_error_of_ray_s_own_is_named_and_not_the_mark_that_ray_data_hangs_below_it():
    """The reason was "SystemException: no message"."""
    error = OutOfDiskError("Local disk is full")
    error.__cause__ = SystemException()
    assert _dropped(error) == NO_ROOM


def test_an_error_in_a_task_is_named_and_not_its_wrapping():
    assert _dropped(RayTaskError("decode", "a traceback", OutOfDiskError("Local disk is full"))) == NO_ROOM
    assert _dropped(RayTaskError("decode", "a traceback", ValueError("no image"))) == Dropped("ValueError: no image")
