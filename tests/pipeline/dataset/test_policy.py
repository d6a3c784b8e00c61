"""Thresholds and classes from YAML, and the labels that follow."""

import pytest

from pipeline.dataset.policy import Policy, read_class_scores, read_classes
from pipeline.errors import ConfigError, InputError
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath

STORE = StoreConfig()
MODEL_LABELS = ("Shirt", "T-shirt", "Dress", "no", "007")


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "file.yaml").write_text(text)
        return StorePath(f"file://{tmp_path}/file.yaml")

    return write


def test_classes_are_renamed_joined_dropped_and_otherwise_kept(write):
    classes, drop_others = read_classes(write("Shirt: top\nT-shirt: top\nDress:\n"))
    policy = Policy(classes=classes, drop_others=drop_others)
    assert [policy.label_of(label) for label in MODEL_LABELS] == ["top", "top", None, "no", "007"]
    assert policy.labels(MODEL_LABELS) == ["top", "no", "007"]


def test_a_star_drops_all_other_classes(write):
    classes, drop_others = read_classes(write('Dress: Dress\n"*": null\n'))
    assert Policy(classes=classes, drop_others=drop_others).labels(MODEL_LABELS) == ["Dress"]


def test_names_that_yaml_would_take_for_values_are_names(write):
    assert read_classes(write("no: yes\n007: 1e3\n")) == ({"no": "yes", "007": "1e3"}, False)


def test_a_quoted_null_is_a_label(write):
    assert read_classes(write('Shirt: "null"\nDress: null\n'))[0] == {"Shirt": "null", "Dress": None}


def test_thresholds_are_by_the_labels_of_the_data_set(write):
    policy = Policy(
        accept_score=0.6,
        class_scores=read_class_scores(write("top: 0.9\n")),
        classes={"Shirt": "top"},
    )
    policy.check(MODEL_LABELS)
    assert (policy.min_score("top"), policy.min_score("Dress")) == (0.9, 0.6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Shirt: 2\n", "Shirt: a score lies in 0..1, not 2"),
        ("Shirt: high\n", "'high' is no score"),
        ("Shirt:\n", "None is no score"),
        ("- Shirt\n", "must hold lines"),
        ("Shirt: {a: 1}\n", "line 1: must be `name: value`"),
        ("Shirt: 0.5\nShirt: 0.6\n", "names 'Shirt' twice"),
        ("Shirt: [\n", "is no YAML"),
        ("", "must hold lines"),
    ],
)
def test_what_is_no_table_of_scores_is_told(write, text, expected):
    with pytest.raises(ConfigError, match=expected.replace("{", r"\{")):
        Policy(class_scores=read_class_scores(write(text)))


@pytest.mark.parametrize(("text", "expected"), [('"*": other\n', "can only be null"), ('Shirt: ""\n', "is not empty")])
def test_what_is_no_table_of_classes_is_told(write, text, expected):
    with pytest.raises(ConfigError, match=expected):
        read_classes(write(text))


def test_a_file_that_is_not_there_is_an_input_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"--classes .* cannot be read"):
        read_classes(StorePath(f"file://{tmp_path}/gone.yaml"))


def test_misspelt_names_are_told_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"no class 'Shrit'; it has Shirt, T-shirt, Dress, no, 007"):
        Policy(classes={"Shrit": "top"}).check(MODEL_LABELS)
    with pytest.raises(ConfigError, match="no image gets the label 'Shirt'"):
        Policy(classes={"Shirt": "top"}, class_scores={"Shirt": 0.5}).check(MODEL_LABELS)


@pytest.mark.parametrize("score", [-0.1, 1.1])
def test_a_threshold_lies_between_0_and_1(score):
    with pytest.raises(ConfigError, match="--accept-score"):
        Policy(accept_score=score)


def test_another_policy_has_another_digest():
    policies = [Policy(), Policy(accept_score=0.6), Policy(class_scores={"a": 0.5}), Policy(classes={"a": None})]
    assert len({policy.digest() for policy in [*policies, Policy(drop_others=True)]}) == 5
    assert Policy().digest() == policies[0].digest()


@pytest.mark.parametrize("score", [float("inf"), float("nan"), -0.1, 1.1])
def test_a_score_that_no_softmax_gives_is_refused(score):
    with pytest.raises(ConfigError, match=r"a score lies in 0\.\.1"):
        Policy(accept_score=score)
    with pytest.raises(ConfigError, match=r"a score lies in 0\.\.1"):
        Policy(class_scores={"cat": score})


def test_labels_without_a_score_of_their_own_may_all_need_a_review():
    policy = Policy(class_scores={"cat": 0.8}, review_others=True)
    assert (policy.min_score("cat"), policy.min_score("dog")) == (0.8, float("inf"))
    assert policy.digest() != Policy(class_scores={"cat": 0.8}).digest()


def test_the_digest_of_a_policy_is_that_of_earlier_versions():
    """Another digest would publish every data set again."""
    assert Policy().digest() == "920666de9a476932c3c2eb0a14d44a4d656691c4e45636e93e68c52020f55022"
