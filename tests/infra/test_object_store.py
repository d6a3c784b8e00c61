"""Policies and lifecycle rules as documents; `tests/jobs/test_permissions.py` runs the job with them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.aws_commands import check_aws

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operate" / "object-store.md").read_text()
FOLDER = ROOT / "infra" / "object-store"
POLICIES = [path.name for path in FOLDER.iterdir() if path.name != "lifecycle.json"]
ALLOWED = {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}


def as_list(value):
    return value if isinstance(value, list) else [value]


def too_wide(policy):
    """Returns a sentence for each right of a policy beyond four actions below the policy's own prefixes."""
    found = []
    for statement in policy["Statement"]:
        sid = statement["Sid"]
        if set(statement) != {"Sid", "Effect", "Action", "Resource"} or statement["Effect"] != "Allow":
            found.append(f"{sid}: more than an action allowed on a resource")
        actions = as_list(statement["Action"])
        found += [f"{sid}: {action}" for action in actions if action not in ALLOWED]
        for resource in as_list(statement["Resource"]):
            name = resource.removeprefix("arn:aws:s3:::")
            whole_bucket = re.fullmatch(r"[A-Z]+-BUCKET", name)
            below = re.fullmatch(r"[A-Z]+-BUCKET/[A-Z]+-PREFIX/.+", name)
            if not (whole_bucket if actions == ["s3:ListBucket"] else below):
                found.append(f"{sid}: {resource}")
            if {"s3:PutObject", "s3:DeleteObject"} & set(actions) and re.fullmatch(r".*-PREFIX/\*", name):
                found.append(f"{sid}: writes anything below {name}")
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_allows_what_it_should_and_nothing_wider(name):
    policy = json.loads((FOLDER / name).read_text())
    assert policy["Version"] == "2012-10-17"
    assert too_wide(policy) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("reader.json", '"s3:GetObject"', '"s3:Get*"'),
        ("reader.json", '"s3:GetObject"', '"s3:*"'),
        ("reader.json", "INPUT-BUCKET/INPUT-PREFIX/*", "INPUT-BUCKET/*"),
        ("reader.json", "arn:aws:s3:::INPUT-BUCKET/INPUT-PREFIX/*", "*"),
        ("reader.json", '"arn:aws:s3:::INPUT-BUCKET"', '"arn:aws:s3:::*"'),
        ("writer.json", "OUTPUT-PREFIX/data/*", "OUTPUT-PREFIX/*"),
        ("writer.json", '"s3:DeleteObject"', '"s3:DeleteBucket"'),
        ("labeller.json", "OUTPUT-PREFIX/dataset/*", "OUTPUT-PREFIX/*"),
        ("exports.json", "*.labels.tar", "*"),
        ("exports.json", '"Allow"', '"Deny"'),
    ],
)
def test_a_policy_that_is_too_wide_is_noticed(name, old, new):
    text = (FOLDER / name).read_text()
    assert old in text
    assert too_wide(json.loads(text.replace(old, new)))


def test_rows_plans_and_corrections_cannot_be_deleted():
    for name in POLICIES:
        for statement in json.loads((FOLDER / name).read_text())["Statement"]:
            if "s3:DeleteObject" in as_list(statement["Action"]):
                assert all(
                    re.search(r"PREFIX/(\.preflight-|calibration/)\*$", it) for it in as_list(statement["Resource"])
                )


def filled(tmp_path, *exchanged):
    """The documents with names filled in, by the page's own script, or one in which something was exchanged."""
    script = re.search(r"^```sh\n(mkdir .*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
    for old, new in exchanged:
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=60)
    return {path.name: path.read_text() for path in (tmp_path / "build" / "policies").iterdir()}


def test_the_pages_script_fills_in_every_name(tmp_path):
    documents = filled(tmp_path)
    assert set(documents) == {path.name for path in FOLDER.iterdir()}
    for name, text in documents.items():
        json.loads(text)
        assert not re.search(r"[A-Z]+-(BUCKET|PREFIX)", text), name
    assert "arn:aws:s3:::my-labels/labels/data/*" in documents["writer.json"]


def test_a_whole_bucket_is_filled_in_as_the_page_says(tmp_path):
    of_input, of_output = re.search(r"there is none: `(.*?)`, and of the\noutput `(.*?)`", PAGE).groups()
    exchanged = [("s|INPUT-PREFIX|photos|g", of_input), ("s|OUTPUT-PREFIX|labels|g", of_output)]
    documents = filled(tmp_path, *exchanged)
    assert not re.search(r"[A-Z]+-PREFIX", "".join(documents.values()))
    assert "arn:aws:s3:::my-photos/*" in documents["reader.json"]
    assert "arn:aws:s3:::my-labels/data/*" in documents["writer.json"]
    rules = json.loads(documents["lifecycle.json"])
    assert {rule["Filter"]["Prefix"] for rule in rules["Rules"]} == {"calibration/", ".preflight-", "_lease.json", ""}
    assert [key for key in KEPT if days_of(rules, key) is not None] == []


# Lifecycle.

# What a run or a person leaves in an output for good.
KEPT = (
    "_job.json", "_lease.json", "_index.parquet", "data/x-0123456789abcdef-00000-end.parquet", "runs/r/plan.parquet",
    "runs/r/report.json", "runs/r/changes.parquet", "dataset/labels.parquet", "dataset/_exports.json",
    "overrides.csv", "overrides/a.csv",
)  # fmt: skip


def days_of(rules, key):
    """Returns the days after which a current object expires; None if it never expires."""
    found = [
        rule["Expiration"]["Days"]
        for rule in rules["Rules"]
        if rule["Status"] == "Enabled"
        and "Days" in rule.get("Expiration", {})
        and key.startswith(rule["Filter"]["Prefix"])
    ]
    return min(found, default=None)


def lifecycle():
    return (FOLDER / "lifecycle.json").read_text()


def test_nothing_expires_that_a_later_run_needs():
    rules = json.loads(lifecycle())
    assert [key for key in KEPT if days_of(rules, f"OUTPUT-PREFIX/{key}") is not None] == []
    assert days_of(rules, "OUTPUT-PREFIX/calibration/r/data/x.parquet") == 2
    assert days_of(rules, "OUTPUT-PREFIX/.preflight-0123") == 2


@pytest.mark.parametrize("prefix", ["runs/", "", "runs/2025", "data/", "_lease"])
def test_a_rule_that_takes_away_what_is_needed_is_noticed(prefix):
    rules = json.loads(lifecycle().replace("OUTPUT-PREFIX/calibration/", f"OUTPUT-PREFIX/{prefix}"))
    kept = [*KEPT, "runs/20250101T000000Z-0000/plan.parquet"]
    assert [key for key in kept if days_of(rules, f"OUTPUT-PREFIX/{key}") is not None]


def test_the_rules_are_what_the_api_takes():
    flags = ["--bucket", "b", "--lifecycle-configuration", "file://build/policies/lifecycle.json"]
    taken = check_aws(["s3api", "put-bucket-lifecycle-configuration", *flags])
    assert len(taken["LifecycleConfiguration"]["Rules"]) == lifecycle().count('"ID"')


def test_every_document_is_on_the_page():
    assert [name for name in POLICIES if f"| `{name}` |" not in PAGE] == []
