"""The batches that a peer makes, and the settings that it chooses for them."""

from benchmarks.network.batches import batch_sizes, commonest, equal_batches, fastest, setting_for


def test_batches_to_try_are_powers_of_two_of_the_commonest_size():
    assert batch_sizes([(375, 500)] * 5 + [(500, 375)] * 3) == [1, 2, 4]
    assert batch_sizes([(64, 64), (65, 64)]) == [1]


def test_no_batch_to_try_has_more_pixels_than_four_photos():
    assert batch_sizes([(375, 500)] * 20)[-1] == 4
    assert batch_sizes([(224, 224)] * 20)[-1] == 8
    assert batch_sizes([(4000, 4000)] * 20) == [1]


def test_the_commonest_size_comes_with_its_count():
    assert commonest([(1, 2), (3, 4), (3, 4)]) == ((3, 4), 2)


def test_each_image_is_in_one_batch_of_its_size():
    sizes = [(1, 1), (2, 2), (1, 1), (1, 1), (2, 2)]
    assert equal_batches(sizes, 2) == [[0, 2], [3], [1, 4]]
    assert equal_batches(sizes, 1) == [[0], [2], [3], [1], [4]]


def test_the_fastest_number_is_chosen_and_for_each_number_its_own_setting():
    seconds = {(1, "plain"): 3.0, (1, "last"): 2.0, (4, "plain"): 1.0, (4, "last"): 1.5}
    assert fastest(seconds) == (4, {1: "last", 4: "plain"})
    assert fastest(dict(reversed(seconds.items()))) == (4, {4: "plain", 1: "last"})


def test_a_batch_runs_as_the_largest_that_was_tried_and_is_no_larger():
    settings = {1: "last", 2: "autocast", 8: "plain"}
    assert [setting_for(number, settings) for number in (1, 2, 3, 7, 8, 9)] == [
        "last", "autocast", "autocast", "autocast", "plain", "plain",
    ]  # fmt: skip
