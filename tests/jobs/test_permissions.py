"""The job with the policies of `infra/object-store`, on a real S3 server that evaluates them; and without each part.

The server is given the documents as they are, with names filled in by the page's own script. One run does work, on a
Ray that is up; all others end before any Ray is needed.
"""

import io
import json
import os
import re
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from jobs.cli.command import run_command
from jobs.label_dataset import label_dataset
from pipeline.store.clients import forget_clients
from pipeline.store.config import StoreConfig
from pipeline.store.errors import DeniedError
from pipeline.store.store_path import StorePath
from tests.infra.test_object_store import filled
from tests.jobs.conftest import ROOT, photo
from tests.support.fault_proxy import FaultProxy, Refuse
from tests.support.s3_server import running_s3, secret_of

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAGE = (ROOT / "docs" / "operate" / "object-store.md").read_text()
FILES = ("reader.json", "writer.json", "labeller.json", "exports.json")
DOCUMENTS = {name: json.loads((ROOT / "infra" / "object-store" / name).read_text()) for name in FILES}
SIDS = {statement["Sid"]: name for name, document in DOCUMENTS.items() for statement in document["Statement"]}
INPUT, OUTPUT, WEIGHTS = "s3://my-photos/photos", "s3://my-labels/labels", "s3://my-models/b2"
SEEN, NEW = f"{INPUT}/seen", f"{INPUT}/new"
# An output without an earlier run, which would save a calibration, and let what may not be read become failed rows.
FRESH = "s3://my-labels/fresh"

# What is asked of the job without a statement: the night is one with nothing to do, unless flags say otherwise.
NIGHT = ["--input", SEEN, "--accept-score", "0"]
FLAGS = {
    "ReadInputs": ["--input", NEW, "--dry-run"],
    "ListWeights": [*NIGHT, "--dry-run"],
    "WriteRuns": ["--input", INPUT],
    "WriteRows": [*NIGHT, "--prune"],
    "Calibrate": ["--input", INPUT, "--dry-run", "--calibrate"],
    "WriteBesideImages": [*NIGHT, "--export", "webdataset"],
}
# As AWS answers: a read of what is not there takes `s3:ListBucket`.
AS_AWS = {
    "ListWeights": "^(GET|HEAD) /my-models/b2/preprocessor_config.json",
    "ListOutput": "^(GET|HEAD) /my-labels/first/_job.json",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    documents = filled(tmp_path_factory.mktemp("policies"))
    users = {"everything": [documents[name] for name in FILES]}
    for sid in SIDS:
        left = [json.loads(documents[name]) for name in FILES]
        for document in left:
            document["Statement"] = [it for it in document["Statement"] if it["Sid"] != sid]
        kept = [json.dumps(document) for document in left if document["Statement"]]
        users[f"without-{sid}"] = [text.replace(OUTPUT[5:], output_of(sid)[5:]) for text in kept]
    with running_s3(tmp_path_factory.mktemp("s3"), users) as started:
        yield started, users


@pytest.fixture(scope="module")
def stores(server, tiny_weights):
    """The server, with weights, and images that were and were not seen."""
    started, _ = server
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        info = tarfile.TarInfo("a.png")
        info.size = len(photo(1))
        file.addfile(info, io.BytesIO(photo(1)))
    objects = {
        f"{SEEN}/t.tar": tar.getvalue(), f"{SEEN}/u.tar": tar.getvalue(),
        f"{SEEN}/loose/b.png": photo(2), f"{NEW}/c.png": photo(3),
        "s3://my-photos/private/d.png": photo(4),
        **{f"{WEIGHTS}/{path.name}": path.read_bytes() for path in Path(tiny_weights).iterdir()},
    }  # fmt: skip
    for bucket in ("my-photos", "my-models", "my-labels"):
        started.make_bucket(bucket)
    with closing(started.client()) as client:
        for uri, body in objects.items():
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            client.put_object(Bucket=bucket, Key=key, Body=body)
    return started


@pytest.fixture
def users(server, warm_ray, monkeypatch):
    """A profile for each user, in the home that Ray's workers were started with."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    folder = Path(os.environ["HOME"], ".aws")
    folder.mkdir(exist_ok=True)
    profiles = [
        f"[profile {user}]\nregion = us-east-1\naws_access_key_id = {user}\naws_secret_access_key = {secret_of(user)}\n"
        for user in server[1]
    ]
    (folder / "config").write_text("".join(profiles))
    forget_clients()
    yield
    (folder / "config").unlink()
    forget_clients()


def output_of(sid):
    return FRESH if sid in ("ReadInputs", "Calibrate") else OUTPUT


def arguments(endpoint_url, user, flags, output=OUTPUT):
    where = ["--input-endpoint-url", endpoint_url, "--output-endpoint-url", endpoint_url]
    who = ["--input-profile", user, "--output-profile", user]
    return ["--weights", WEIGHTS, "--output", output, *where, *who, *flags]


@pytest.fixture(scope="module")
def nights():
    """The nights that were done."""
    return []


@pytest.fixture
def first_night(nights, stores, users, run_here):
    """The result of a run that did work, with all of the policies; after it an image is corrected, and a tar gone."""
    if not nights:
        flags = [*NIGHT, "--export", "imagefolder", "--export", "csv"]
        nights.append(run_here(*arguments(stores.endpoint_url, "everything", flags), command=label_dataset))
        correction = f"image_id,label\n{SEEN}/loose/b.png,x\n".encode()
        with closing(stores.client()) as client:
            client.put_object(Bucket="my-labels", Key="labels/overrides.csv", Body=correction)
            client.delete_object(Bucket="my-photos", Key=f"{SEEN}/u.tar".removeprefix("s3://my-photos/"))
    return nights[0]


@pytest.fixture
def run(first_night, stores, capfd):
    """(user, flags, ...) -> exit code and error of a job that needs no Ray."""

    def run(user, flags, endpoint_url=stores.endpoint_url, output=OUTPUT):
        capfd.readouterr()
        code = run_command(label_dataset, arguments(endpoint_url, user, flags, output))
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err, captured.err
        return code, json.loads(captured.out.splitlines()[-1]).get("error")

    return run


def rows_of(heading):
    """A table of the page: without -> (exit code, sentence)."""
    table = PAGE.partition(heading)[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*\|)? (\d+) \| (.*) \|$", table, re.MULTILINE)
    return {sid: (int(code), sentence) for sid, code, sentence in rows}


WITHOUT = rows_of("| without | of | exit | what it says |")
ON_AWS = rows_of("| without | exit | what it says |")


def says(sentence, error):
    """Whether an error is what the page has; there, what varies is three dots."""
    parts = [re.escape(part.strip("`")) for part in sentence.split("…")]
    return re.fullmatch(".*".join(parts), error) is not None


def test_the_policies_are_enough_and_nothing_else_is_allowed(first_night, stores, run):
    assert first_night.code == 0, first_night.stderr
    assert (first_night.summary["ok"], len(first_night.summary["dataset"]["exports"])) == (3, 2)
    store = StoreConfig(profile="everything", endpoint_url=stores.endpoint_url)
    for request in (
        lambda: StorePath("s3://my-photos/private/d.png", store).read(),
        lambda: StorePath(f"{NEW}/c.png", store).put(b"x"),
        lambda: StorePath(f"{OUTPUT}/overrides.csv", store).put(b"x"),
        lambda: StorePath(f"{OUTPUT}/_job.json", store).delete(),
        lambda: StorePath(f"{OUTPUT}/dataset/labels.parquet", store).delete(),
    ):
        with pytest.raises(DeniedError, match="403 AccessDenied"):
            request()
    code, error = run("everything", NIGHT, output="s3://my-labels/other")
    assert code == 5 and "s3://my-labels/other/" in error


@pytest.mark.parametrize("sid", SIDS)
def test_without_a_statement_the_job_ends_and_says_what_it_lacks(run, sid):
    code, error = run(f"without-{sid}", FLAGS.get(sid, NIGHT), output=output_of(sid))
    assert code == WITHOUT[sid][0], error
    assert says(WITHOUT[sid][1], error) if code else error is None, error


@pytest.mark.parametrize("sid", AS_AWS)
def test_where_the_store_hides_what_is_missing_the_job_says_what_it_lacks(stores, run, sid):
    with FaultProxy(stores.endpoint_url) as proxy:
        proxy.add(AS_AWS[sid], Refuse(403, "AccessDenied"))
        output = "s3://my-labels/first" if sid == "ListOutput" else OUTPUT
        code, error = run("everything", [*NIGHT, "--dry-run"], proxy.endpoint_url, output)
    assert code == ON_AWS[sid][0], error
    assert says(ON_AWS[sid][1], error), error


def test_the_server_takes_the_lifecycle_rules_and_keeps_every_word_of_them(stores, tmp_path):
    rules = json.loads(filled(tmp_path)["lifecycle.json"])
    with closing(stores.client()) as client:
        client.put_bucket_lifecycle_configuration(Bucket="my-labels", LifecycleConfiguration=rules)
        kept = client.get_bucket_lifecycle_configuration(Bucket="my-labels")["Rules"]
        client.delete_bucket_lifecycle(Bucket="my-labels")
    assert kept == rules["Rules"]


def test_the_page_has_a_row_for_each_statement():
    assert set(WITHOUT) == set(SIDS)
    assert set(ON_AWS) == set(AS_AWS)
    assert all(f"| `{sid}` | `{name}` |" in PAGE for sid, name in SIDS.items())


def test_a_sentence_that_the_job_does_not_say_is_noticed():
    assert says("`a … b (it takes c)`", "a x/y b (it takes c)")
    assert not says("`a … b (it takes c)`", "a x/y b (it takes d)")
