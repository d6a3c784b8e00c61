"""The identity of an output is written once, and every later run must agree with it."""

import json
from dataclasses import replace

import pytest

from model.checkpoints.checkpoint import CheckpointInfo
from model.checkpoints.files import CheckpointFiles
from model.checkpoints.rename import NAMINGS
from model.network.config import VARIANTS
from pipeline.chunks.size_policy import Resize, SizePolicy
from pipeline.chunks.task import Classify, ExtractFeatures
from pipeline.cluster.config import ComputeConfig
from pipeline.config import identity
from pipeline.config.checkpoint import Checkpoint
from pipeline.config.identity import check_identity, claim_identity, identity_digest, rules_of, stored_setting
from pipeline.config.job_config import JobConfig
from pipeline.errors import OutputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.names import NameFilter
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.output.config import OutputConfig
from pipeline.output.layout import JOB_FILE
from pipeline.store.config import StoreConfig
from pipeline.store.errors import NotFoundError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

STORE = StoreConfig()
INFO = CheckpointInfo(
    config=VARIANTS["b0"], labels=None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), digest="d" * 64,
    naming=NAMINGS[0], base="", largest=("head.weight", 1.0),
)  # fmt: skip
CONFIG = JobConfig(
    task=Classify(),
    input=InputConfig(uris=("/in",), keep_columns=("caption",)),
    output=OutputConfig(uri="/out"),
    weights="/weights",
)
NAMES = ("cat", "dog")


def job_identity(config, info, labels, revision=None, precision="fp32"):
    files = CheckpointFiles(weights=b"", config_json=None, preprocessor_json=None, revision=revision)
    network = config.task.network(info.config)
    checkpoint = Checkpoint(files=files, info=info, network=network, labels=labels, load_s=0.0)
    return identity.job_identity(config, checkpoint, precision)


EXPECTED = job_identity(CONFIG, INFO, NAMES)


@pytest.fixture
def folder(tmp_path):
    """The URI of an output on the disk."""
    return canonical_uri(str(tmp_path))


def with_input(**changes):
    return replace(CONFIG, input=replace(CONFIG.input, **changes))


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (replace(CONFIG, task=Classify(top_k=4)), "top_k"),
        (replace(CONFIG, sizes=SizePolicy(preprocess="imagenet")), "preprocess.policy"),
        (replace(CONFIG, sizes=SizePolicy(max_image_pixels=2000)), "sizes.max_image_pixels"),
        (replace(CONFIG, sizes=SizePolicy(small_images="reject")), "sizes.small_images"),
        (replace(CONFIG, sizes=SizePolicy(large_images="reject")), "sizes.large_images"),
        (replace(CONFIG, output=OutputConfig(uri="/out", rows_per_file=5)), "rows_per_file"),
        (replace(CONFIG, output=OutputConfig(uri="/out", max_file_mib=5)), "max_file_mib"),
        (with_input(names=NameFilter(include=("*.jpg",))), "records.include"),
        (with_input(names=NameFilter(exclude=("*.gif",))), "records.exclude"),
        (with_input(names=NameFilter(include_also=("*.img",))), "records.include_also"),
        (with_input(image_column="jpg"), "records.image_column"),
        (with_input(keep_columns=()), "records.keep_columns"),
        (with_input(limit=10), "records.limit"),
    ],
)
def test_a_setting_that_changes_rows_is_part_of_it_and_named_where_it_differs(folder, config, setting):
    other = job_identity(config, INFO, NAMES)
    assert identity_digest(other) != identity_digest(EXPECTED)
    claim_identity(StorePath(folder, STORE), EXPECTED)
    with pytest.raises(OutputError) as raised:
        check_identity(StorePath(folder, STORE), other)
    message = str(raised.value)
    assert message.startswith(f"{folder} holds the results of another job; it differs in: {setting} (")
    assert message.count(" there, ") == 1


def test_the_precision_that_was_chosen_is_part_of_it(folder):
    claim_identity(StorePath(folder, STORE), EXPECTED)
    with pytest.raises(OutputError, match=r'precision \("fp32" there, "bf16" now\)'):
        check_identity(StorePath(folder, STORE), job_identity(CONFIG, INFO, NAMES, precision="bf16"))
    assert stored_setting(StorePath(folder, STORE), "precision") == "fp32"


def test_an_output_of_labels_takes_no_features(folder):
    claim_identity(StorePath(folder, STORE), EXPECTED)
    with pytest.raises(OutputError, match=r'job \("classify" there, "extract_features" now\)'):
        check_identity(StorePath(folder, STORE), job_identity(replace(CONFIG, task=ExtractFeatures()), INFO, None))


def test_the_names_of_the_classes_stand_in_the_output_for_those_who_evaluate_it():
    assert EXPECTED["labels"] == list(NAMES)
    assert job_identity(CONFIG, INFO, None)["labels"] is None


@pytest.mark.parametrize(
    ("loaded", "names"),
    [
        (replace(INFO, digest="e" * 64), NAMES),
        (replace(INFO, config=VARIANTS["b1"]), NAMES),
        (replace(INFO, mean=(0.5, 0.4, 0.2)), NAMES),
        (replace(INFO, std=(0.2, 0.2, 0.1)), NAMES),
        (INFO, ("cat", "cow")),
        (INFO, ("dog", "cat")),
        (INFO, None),
    ],
)
def test_the_network_and_the_names_of_its_classes_are_part_of_it(loaded, names):
    assert identity_digest(job_identity(CONFIG, loaded, names)) != identity_digest(EXPECTED)


@pytest.mark.parametrize(
    "config",
    [
        with_input(uris=("/in", "/more")),
        with_input(store=StoreConfig(endpoint_url="http://elsewhere")),
        replace(CONFIG, output=OutputConfig(uri="/moved")),
        replace(CONFIG, weights="/copy"),
        replace(CONFIG, task=Classify(labels="/file/with/the/same/names")),
        replace(CONFIG, compute=ComputeConfig(device="cuda", num_actors=(2, 3), max_passes=9)),
        replace(CONFIG, max_failed_fraction=0.5, run_id="x", dry_run=True, thumbnails=24),
    ],
)
def test_where_things_are_and_who_computes_is_no_part_of_it(config):
    assert job_identity(config, INFO, NAMES) == EXPECTED


def test_a_claimed_output_can_be_claimed_and_checked_again(root):
    claim_identity(StorePath(root, STORE), EXPECTED)
    stored = StorePath(root, STORE).join(JOB_FILE).read()
    claim_identity(StorePath(root, STORE), EXPECTED)
    check_identity(StorePath(root, STORE), EXPECTED)
    assert StorePath(root, STORE).join(JOB_FILE).read() == stored
    assert json.loads(stored)["top_k"] == 5


def test_an_output_keeps_its_rules_of_reading_and_one_that_names_none_has_the_first(folder):
    output = StorePath(folder, STORE)
    assert rules_of(output) == RULES == EXPECTED["records"]["rules"]
    before = job_identity(replace(CONFIG, input=CONFIG.input.under_rules(FIRST_RULES)), INFO, NAMES)
    assert "rules" not in before["records"]
    claim_identity(output, before)
    assert rules_of(output) == FIRST_RULES
    with pytest.raises(OutputError, match=r"records.rules \(null there, 2 now\)"):
        check_identity(output, EXPECTED)


@pytest.mark.parametrize("rules", [RULES + 1, 0, "2"])
def test_rules_that_this_version_does_not_know_are_refused(folder, rules):
    """Read by other rules, the rest of a shard would lose and double rows."""
    output = StorePath(folder, STORE)
    claim_identity(output, {**EXPECTED, "records": {**EXPECTED["records"], "rules": rules}})
    with pytest.raises(OutputError, match="newer version of this job"):
        rules_of(output)


def test_an_output_that_has_none_yet_says_so(root):
    with pytest.raises(NotFoundError):
        check_identity(StorePath(root, STORE), EXPECTED)


def test_of_two_runs_that_claim_at_the_same_time_the_later_must_agree_or_is_refused(root):
    """Both have found none when they were prepared; the store decides."""
    claim_identity(StorePath(root, STORE), EXPECTED)
    other = job_identity(replace(CONFIG, task=Classify(top_k=4)), INFO, NAMES)
    with pytest.raises(OutputError, match=r"top_k \(5 there, 4 now\)"):
        claim_identity(StorePath(root, STORE), other)
    check_identity(StorePath(root, STORE), EXPECTED)


def test_every_difference_is_named_once_and_long_values_are_shortened(folder):
    claim_identity(StorePath(folder, STORE), EXPECTED)
    names = NameFilter(include=tuple(f"folder-{i}/*.jpg" for i in range(20)))
    other = job_identity(
        replace(with_input(names=names), task=Classify(top_k=1)), replace(INFO, digest="e" * 64), NAMES
    )
    with pytest.raises(OutputError) as raised:
        check_identity(StorePath(folder, STORE), other)
    message = str(raised.value)
    assert [part.split(" (")[0] for part in message.split("differs in: ")[1].split("; ")] == [
        "records.include", "top_k", "weights_sha256",
    ]  # fmt: skip
    assert "Choose another --output" in message
    assert len(message) < 500


@pytest.mark.parametrize("stored", [b"", b"{", b"\xff\xfe\x00", b"not JSON"])
def test_a_file_that_is_no_json_is_refused_and_named(folder, stored):
    StorePath(folder, STORE).join(JOB_FILE).put(stored)
    with pytest.raises(OutputError, match=r"_job\.json is not JSON"):
        check_identity(StorePath(folder, STORE), EXPECTED)


@pytest.mark.parametrize("stored", [b"[]", b"null", b"{}", b'{"job": "extract_features"}'])
def test_a_file_of_something_else_is_another_job(folder, stored):
    StorePath(folder, STORE).join(JOB_FILE).put(stored)
    with pytest.raises(OutputError, match="holds the results of another job"):
        check_identity(StorePath(folder, STORE), EXPECTED)


def test_the_digest_does_not_hang_on_the_order_of_the_settings():
    shuffled = dict(reversed(EXPECTED.items()))
    assert identity_digest(shuffled) == identity_digest(EXPECTED)
    assert identity_digest(json.loads(identity._canonical(EXPECTED))) == identity_digest(EXPECTED)


def test_weights_of_the_hub_are_pinned_to_the_commit_that_the_output_began_with(folder):
    assert stored_setting(StorePath(folder, STORE), "weights_revision") is None
    claim_identity(StorePath(folder, STORE), job_identity(CONFIG, INFO, NAMES, "org/name@abc"))
    assert stored_setting(StorePath(folder, STORE), "weights_revision") == "org/name@abc"
    check_identity(StorePath(folder, STORE), job_identity(CONFIG, INFO, NAMES, "org/name@abc"))
    with pytest.raises(OutputError, match=r'weights_revision \("org/name@abc" there, "org/name@def" now\)'):
        check_identity(StorePath(folder, STORE), job_identity(CONFIG, INFO, NAMES, "org/name@def"))


def test_a_rule_that_resizes_is_part_of_the_identity_and_none_leaves_the_identity_as_it_was():
    native = job_identity(CONFIG, INFO, NAMES)
    assert native["sizes"] == {
        "min_side_px": 32, "max_image_pixels": 4_194_304, "small_images": "upscale", "large_images": "downscale",
    }  # fmt: skip
    square = Resize(to="shorter", width=248, height=248, crop=(224, 224))
    resized = job_identity(replace(CONFIG, sizes=SizePolicy(resize=square)), INFO, NAMES)
    rule = {"to": "shorter", "width": 248, "height": 248, "crop": (224, 224), "filter": "bicubic"}
    assert resized["sizes"] == {**native["sizes"], "resize": rule}
    assert identity_digest(resized) != identity_digest(native)
