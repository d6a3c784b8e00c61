"""A true label is a class' name, its number, or ImageNet's name of its folder."""

from model.network.labels import imagenet_labels, imagenet_wordnet_ids
from pipeline.evaluation.true_labels import understand


def test_names_are_understood_as_the_classes_that_have_them():
    truth = understand(["dog", "cat", "dog"], ("cat", "dog", "cow"), 3)
    assert (truth.by, truth.classes, truth.unknown) == ("names", {"cat": 0, "dog": 1}, ())


def test_numbers_are_understood_where_the_names_say_nothing():
    truth = understand(["0", "2", "3", "-1", "x"], ("cat", "dog", "cow"), 3)
    assert (truth.by, truth.classes) == ("numbers", {"0": 0, "2": 2})
    assert truth.unknown == ("-1", "3", "x")
    assert understand(["1"], None, 3).classes == {"1": 1}


def test_a_class_that_is_called_by_another_ones_number_is_meant_by_its_name():
    truth = understand(["0", "1", "2"], ("2", "1", "0"), 3)
    assert (truth.by, truth.classes) == ("names", {"0": 2, "1": 1, "2": 0})


def test_imagenets_folders_are_understood_where_there_are_its_thousand_classes():
    folders = imagenet_wordnet_ids()
    assert len(set(folders)) == 1000
    assert list(folders) == sorted(folders)
    truth = understand(folders, imagenet_labels(), 1000)
    assert truth.by == "WordNet ids"
    assert truth.classes["n01440764"] == imagenet_labels().index("tench, Tinca tinca")
    assert understand(folders, None, 999).classes == {}


def test_classes_that_share_a_name_are_one():
    """ImageNet has two cranes; a label that is only a name cannot tell them apart."""
    truth = understand(["crane", "heron"], ("crane", "heron", "crane"), 3)
    assert truth.classes == {"crane": 0, "heron": 1}
    assert truth.same == (0, 1, 0)


def test_nothing_is_understood_of_labels_that_are_no_classes():
    truth = understand(["a", "b"], ("cat", "dog"), 2)
    assert (truth.classes, truth.unknown) == ({}, ("a", "b"))


def doubt(true_labels, labels, num_classes, **settings):
    return understand(true_labels, labels, num_classes, **settings).doubt


def test_labels_that_two_kinds_read_differently_are_in_doubt():
    assert "'0', '2' would be other classes as numbers" in doubt(["0", "1", "2"], ("2", "1", "0"), 3)
    mixed = doubt(["cat", "dog", "0", "1", "2"], ("cat", "dog", "cow"), 3)
    assert mixed == "3 true labels are numbers, but 'cat', 'dog' would be other classes as names"


def test_labels_that_one_kind_alone_explains_are_in_no_doubt():
    digits = [str(digit) for digit in range(10)]
    assert doubt(digits, digits, 10) is None
    assert doubt(["cat", "dog", "yak", "-1"], ("cat", "dog"), 2) is None
    assert doubt(["0", "1", "-1", "x"], ("cat", "dog"), 2) is None
    assert doubt([*imagenet_wordnet_ids(), "1"], imagenet_labels(), 1000) is None
    assert doubt(["a"], ("cat", "dog"), 2) is None


def test_numbers_that_go_beyond_the_classes_are_in_doubt():
    """They may begin at 1, or be those of another list of classes."""
    found = doubt(["1", "2", "3"], ("cat", "dog", "cow"), 3)
    assert found == "the true labels '3' are numbers, but the network's classes end at 2"


def test_a_kind_that_is_given_leaves_no_doubt():
    for kind, classes in (("names", {"0": 2, "1": 1, "2": 0}), ("numbers", {"0": 0, "1": 1, "2": 2})):
        truth = understand(["0", "1", "2"], ("2", "1", "0"), 3, kind)
        assert (truth.by, truth.classes, truth.doubt) == (kind, classes, None)
    assert understand(["cat"], ("cat",), 1, "numbers").unknown == ("cat",)
