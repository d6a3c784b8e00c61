"""Names that a user may give, the canonical URI of each, and URIs that are split and joined."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.store.errors import StoreError
from pipeline.store.uris import (
    canonical_uri,
    is_addressable,
    is_inside,
    is_local,
    join_uri,
    local_path,
    name_of,
    split_uri,
)


def test_local_paths_become_absolute_and_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path.resolve()
    (real / "there").mkdir()
    (real / "link").symlink_to("there")
    monkeypatch.chdir(real)
    monkeypatch.setenv("HOME", str(real))
    assert canonical_uri("link/not yet/#1%20?") == f"file://{real}/there/not yet/#1%20?"
    assert canonical_uri("~/there/") == canonical_uri(f"file://{real}/link") == f"file://{real}/there"
    assert canonical_uri(f"FILE://{real}/a//b/../c") == f"file://{real}/a/c"
    assert canonical_uri("/") == "file:///"


def test_object_uris_keep_their_keys() -> None:
    assert canonical_uri("s3://bucket/a%20b//c d/?#/") == "s3://bucket/a%20b//c d/?#"
    assert canonical_uri("S3://bucket/") == canonical_uri("s3://bucket") == "s3://bucket"
    assert canonical_uri("s3://bucket//a") == "s3://bucket/a"
    assert canonical_uri("gs://bucket/a") == "gs://bucket/a"
    assert canonical_uri("az://container/a/./b") == "az://container/a/./b"


@pytest.mark.parametrize("text", ["s3://bucket/a//b", "/a b/%41", "gs://bucket", "/"])
def test_a_canonical_uri_is_its_own(text: str) -> None:
    assert canonical_uri(canonical_uri(text)) == canonical_uri(text)


@pytest.mark.parametrize(
    "text",
    ["", "ftp://host/a", "s3a://bucket/a", "s3://", "s3:///a", "file://host/a", "a\0b", "a\udcff", "~no-such-user/a"],
)
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        canonical_uri(text)


def test_a_password_in_a_uri_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="begin with the name of a bucket") as caught:
        canonical_uri("s3://key:secretsecret@bucket/a")
    assert "secretsecret" not in str(caught.value)


def test_uris_are_taken_apart_and_joined() -> None:
    assert join_uri("s3://b", "c/", "d") == "s3://b/c/d"
    assert join_uri("file:///", "d") == "file:///d"
    assert name_of("s3://b/c/d.tar") == "d.tar"
    assert name_of("s3://b") == "b"
    assert is_local("file:///a") and not is_local("s3://b")
    assert (
        is_inside("s3://b/c/d", "s3://b/c") and is_inside("s3://b/c", "s3://b/c") and is_inside("file:///a", "file:///")
    )
    assert not is_inside("s3://b/cd", "s3://b/c") and not is_inside("s3://b", "s3://b/c")


def test_a_local_path_is_what_the_uri_was_made_of() -> None:
    assert local_path("file:///") == Path("/")
    assert local_path("file:///a b/%41#?") == Path("/a b/%41#?")


def test_an_object_is_a_scheme_a_bucket_and_a_key() -> None:
    assert split_uri("s3://b/c//d") == ("s3", "b", "c//d")
    assert split_uri("az://b") == ("az", "b", "")
    for uri in ("file:///a", "b/c"):
        with pytest.raises(StoreError, match="not a canonical URI"):
            split_uri(uri)


@pytest.mark.parametrize("key", ["a//b", "/a", "a/", "./a", "a/..", "a\nb", "a\x7f"])
def test_a_key_that_the_client_would_change_cannot_be_addressed(key: str) -> None:
    assert not is_addressable(key)
    assert is_addressable("") and is_addressable("a/...b/.c/ü #?%20")
