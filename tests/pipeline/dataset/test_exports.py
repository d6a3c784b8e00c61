"""Exports, read by the libraries that they are for."""

import csv
import io
import json
import tarfile
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image
from pycocotools.coco import COCO

from pipeline.dataset.exports import ExportConfig, Exporter
from pipeline.errors import ConfigError, OutputError
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from tests.pipeline.dataset.conftest import STORE, row

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def picture(seed):
    body = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)).save(body, "PNG")
    return body.getvalue()


@pytest.fixture
def images(world, tmp_path):
    """Two loose images and a tar of three below `in`, and their rows; the last of the tar is no image."""
    folder = tmp_path / "in"
    (folder / "loose").mkdir(parents=True)
    root = canonical_uri(str(folder))
    for index in range(2):
        (folder / "loose" / f"{index}.png").write_bytes(picture(index))
    with tarfile.open(folder / "t.tar", "w") as tar:
        for index in range(3):
            content = picture(index) if index < 2 else b"no image"
            info = tarfile.TarInfo(f"a/{index}.x.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    loose = [
        row("files:a", i, label, score, key=f"loose/{i}.png", image_id=f"{root}/loose/{i}.png")
        for i, (label, score) in enumerate([("cat", 0.9), ("dog", 0.4)])
    ]
    world.publish("a" * 16, loose, shard="files:a")
    shard = f"{root}/t.tar"
    members = [row(shard, i, label, key=f"a/{i}.x.png") for i, label in enumerate(["teapot", "dog", None])]
    world.publish("b" * 16, members, shard=shard)
    return root


@pytest.fixture
def export(world, images):
    def export(*names, roots=None, update=None, **config):
        published = (update or world.update()).published
        config = ExportConfig(names=names, roots=roots or (images,), **config)
        written = Exporter(published, StorePath(world.output, STORE), config, lambda: None).write()
        return [uri.removeprefix(images.removesuffix("/in") + "/") for uri in written]

    return export


def test_the_csv_has_every_row_and_column(export, world, tmp_path):
    assert export("csv") == ["out/dataset/labels.csv"]
    rows = list(csv.DictReader((tmp_path / "out/dataset/labels.csv").open(newline="")))
    assert [(entry["label"], entry["decision"]) for entry in rows] == [
        ("cat", "accepted"), ("dog", "review"), ("teapot", "accepted"), ("dog", "accepted"), ("", "failed"),
    ]  # fmt: skip


def test_no_export_holds_a_score_that_is_no_number(export, images, world, tmp_path):
    """Not even of an image that a person labelled: `NaN` is no JSON."""
    shard, nan = f"{images}/t.tar", float("nan")
    members = [row(shard, i, "dog", nan, key=f"a/{i}.x.png") for i in range(2)]
    world.publish("b" * 16, members, shard=shard)
    loose = [row("files:a", i, "cat", nan, key=f"{i}", image_id=f"{images}/loose/{i}.png") for i in range(2)]
    world.publish("a" * 16, loose, shard="files:a")
    world.override(f"image_id,label\n{shard}#a/1.x.png,dog\n{images}/loose/1.png,cat\n")
    export("csv", "coco", "huggingface", "imagefolder", "webdataset")
    dataset = tmp_path / "out/dataset"
    coco = json.loads((dataset / "coco.json").read_text(), parse_constant=pytest.fail)
    assert [(entry["score"], entry["label_source"]) for entry in coco["annotations"]] == [(None, "human")] * 2
    assert pq.read_table(dataset / "huggingface.parquet")["score"].to_pylist() == [None, None]
    (line,) = (tmp_path / "in/metadata.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["score"] is None
    with tarfile.open(tmp_path / "in/t.labels.tar") as tar:
        said = [
            json.loads(tar.extractfile(name).read(), parse_constant=pytest.fail) for name in ("a/0.json", "a/1.json")
        ]
        assert tar.getnames() == ["a/0.json", "a/1.json", "a/1.cls"]
    assert [(entry["decision"], entry["error_code"]) for entry in said] == [
        ("failed", "infer.not_finite"), ("accepted", "infer.not_finite"),
    ]  # fmt: skip
    assert "nan" not in (dataset / "labels.csv").read_text().lower()


def test_a_name_that_would_choose_what_is_opened_has_no_path(export, images, world, tmp_path):
    """fsspec goes from one file to the next at each `::`, and takes the first for what is in the second."""
    shard = f"{images}/other.tar"
    world.publish("c" * 16, [row(shard, 0, "cat", key="x.png::/tmp/secret.tar::y.png")], shard=shard)
    odd = [
        row("files:d", number, "cat", key=key, image_id=f"{images}/{key}")
        for number, key in enumerate(["zip://a.png::b.png", "plain:name.png"])
    ]
    world.publish("d" * 16, odd, shard="files:d")
    export("huggingface")
    images_of = pq.read_table(tmp_path / "out/dataset/huggingface.parquet").column("image").to_pylist()
    assert {entry["path"].removeprefix("tar://").replace(f"{tmp_path}/in", "IN") for entry in images_of} == {
        "IN/loose/0.png", "a/0.x.png::IN/t.tar", "a/1.x.png::IN/t.tar", "IN/plain:name.png",
    }  # fmt: skip


def test_the_coco_file_is_read_by_pycocotools(export, tmp_path, capsys):
    assert export("coco") == ["out/dataset/coco.json"]
    found = COCO(str(tmp_path / "out/dataset/coco.json"))
    names = {category["id"]: category["name"] for category in found.loadCats(found.getCatIds())}
    labels = {
        (image["file_name"], image.get("shard"), image["width"], image["height"]): names[annotation["category_id"]]
        for image in found.loadImgs(found.getImgIds())
        for annotation in found.loadAnns(found.getAnnIds(imgIds=[image["id"]]))
    }
    assert labels == {
        ("loose/0.png", None, 40, 30): "cat", ("a/0.x.png", "t.tar", 40, 30): "teapot",
        ("a/1.x.png", "t.tar", 40, 30): "dog",
    }  # fmt: skip


def load(*arguments, **options):
    """As a user would, whose warnings are shown and no errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        datasets.disable_progress_bars()
        return datasets.load_dataset(*arguments, split="train", **options)


def test_the_parquet_file_gives_datasets_images_and_classes(export, tmp_path):
    assert export("huggingface") == ["out/dataset/huggingface.parquet"]
    files = str(tmp_path / "out/dataset/huggingface.parquet")
    found = load("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert found.features["label"].names == ["cat", "dog", "teapot"]
    assert [found.features["label"].int2str(entry["label"]) for entry in found] == ["cat", "teapot", "dog"]
    for entry, seed in zip(found, (0, 0, 1), strict=True):
        assert np.array_equal(np.asarray(entry["image"]), np.asarray(Image.open(io.BytesIO(picture(seed)))))


def test_the_metadata_gives_datasets_a_folder_of_images_with_labels(export, tmp_path):
    assert export("imagefolder") == ["in/metadata.jsonl"]
    found = load("imagefolder", data_dir=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"))
    assert [(entry["image"].size, entry["label"], entry["label_id"]) for entry in found] == [((40, 30), "cat", 0)]


def test_the_sidecar_of_a_shard_is_read_beside_it_by_webdataset(export, tmp_path):
    assert export("webdataset") == ["in/t.labels.tar"]
    shard, sidecar = (
        list(wds.WebDataset(str(tmp_path / "in" / name), shardshuffle=False).decode())
        for name in ("t.tar", "t.labels.tar")
    )
    assert [sample["__key__"] for sample in shard] == [sample["__key__"] for sample in sidecar] == ["a/0", "a/1", "a/2"]
    assert [(sample["json"]["label"], sample.get("cls")) for sample in sidecar] == [
        ("teapot", 2),
        ("dog", 1),
        (None, None),
    ]


def test_what_is_current_is_not_written_again(export, world):
    update = world.update()
    names = ("csv", "coco", "huggingface", "imagefolder", "webdataset")
    assert len(export(*names, update=update)) == 5
    assert export(*names, update=update) == []
    # A correction of one image: the tar's sidecar says the same as before.
    world.override(f"image_id,label\n{world.labels()['0.png']['image_id']},kettle\n")
    assert export(*names) == [
        "out/dataset/labels.csv", "out/dataset/coco.json", "out/dataset/huggingface.parquet", "in/metadata.jsonl",
    ]  # fmt: skip


def test_metadata_of_somebody_else_is_not_overwritten(export, tmp_path):
    (tmp_path / "in" / "metadata.jsonl").write_text("theirs")
    with pytest.raises(
        OutputError, match=r"metadata\.jsonl is there and is not ours; move it away, or give --sidecars"
    ):
        export("imagefolder")
    assert (tmp_path / "in" / "metadata.jsonl").read_text() == "theirs"


def test_a_folder_without_accepted_images_has_no_metadata_and_an_earlier_one_is_emptied(export, world, tmp_path):
    world.update()
    image_id = world.labels()["0.png"]["image_id"]
    world.override(f"image_id,label\n{image_id},\n")
    assert export("imagefolder") == []
    world.override("image_id,label\nnobody,\n")
    assert export("imagefolder") == ["in/metadata.jsonl"]
    world.override(f"image_id,label\n{image_id},\n")
    assert export("imagefolder") == ["in/metadata.jsonl"]
    assert (tmp_path / "in" / "metadata.jsonl").read_bytes() == b""


def test_a_name_that_leads_out_of_a_folder_is_in_no_sidecar(export, world, images, tmp_path, caplog):
    hostile = ["../x.png", "a/../../x.png", "/etc/x.png", "..\\x.png", "C:/x.png", "fine..x/x.png"]
    shard = f"{images}/u.tar"
    world.publish("c" * 16, [row(shard, i, "cat", key=name) for i, name in enumerate(hostile)], shard=shard)
    export("webdataset")
    with tarfile.open(tmp_path / "in" / "u.labels.tar") as tar:
        assert {name.rpartition(".")[0] for name in tar.getnames()} == {"fine..x/x"}
    assert f"export.names_lead_out shard={tmp_path}/in/u.tar records=5" in caplog.text


def test_two_shards_that_want_one_sidecar_are_named(export, world, images):
    world.publish("c" * 16, [row(f"{images}/t.tgz", 0, "cat", key="0.png")], shard=f"{images}/t.tgz")
    with pytest.raises(ConfigError, match=r"t\.labels\.tar would stand for .*/t\.tar and for .*/t\.tgz: rename one"):
        export("webdataset")


def test_metadata_that_somebody_changed_is_theirs(export, world, tmp_path):
    export("imagefolder")
    (tmp_path / "in" / "metadata.jsonl").write_text("theirs now")
    world.override(f"image_id,label\n{world.labels()['0.png']['image_id']},kettle\n")
    with pytest.raises(OutputError, match="is not ours"):
        export("imagefolder")


@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize("after_put", [False, True])
def test_a_run_that_dies_around_the_write_of_a_sidecar_finds_it_again(
    export, world, tmp_path, monkeypatch, after_put, was_there
):
    if was_there:
        world.override("image_id,label\nnobody,\n")
        export("imagefolder")
        world.override(f"image_id,label\n{world.labels()['0.png']['image_id']},kettle\n")

    class KilledError(Exception):
        pass

    real = StorePath.put

    def killed(path, *arguments, **options):
        is_sidecar = path.uri.endswith("metadata.jsonl")
        if is_sidecar and not after_put:
            raise KilledError
        etag = real(path, *arguments, **options)
        if is_sidecar:
            raise KilledError
        return etag

    update = world.update()
    monkeypatch.setattr(StorePath, "put", killed)
    with pytest.raises(KilledError):
        export("imagefolder", update=update)
    monkeypatch.undo()
    assert export("imagefolder", update=update) == ([] if after_put else ["in/metadata.jsonl"])
    found = json.loads((tmp_path / "in" / "metadata.jsonl").read_text())
    assert found["label"] == ("kettle" if was_there else "cat")


def test_sidecars_may_lie_in_a_folder_of_their_own(export, images):
    to = images.replace("/in", "/beside")
    assert export("imagefolder", "webdataset", sidecars_to=to) == ["beside/metadata.jsonl", "beside/t.labels.tar"]


def test_two_inputs_with_equal_names_do_not_share_a_sidecar(export, world, images):
    other = images.replace("/in", "/in2")
    world.publish("c" * 16, [row(f"{other}/t.tar", 0, "cat", key="0.png")], shard=f"{other}/t.tar")
    with pytest.raises(ConfigError, match="would stand for"):
        export("webdataset", roots=(images, other), sidecars_to=images.replace("/in", "/beside"))


def test_a_folder_that_cannot_be_written_to_is_told(export, images):
    store = StoreConfig()
    with pytest.raises(OutputError, match="cannot be written"):
        export("imagefolder", sidecars_to="file:///proc/nowhere", input_store=store)


def test_images_in_parquet_have_no_path_and_are_left_out_of_what_needs_one(export, world, images, tmp_path):
    shard = f"{images}/p.parquet"
    world.publish("c" * 16, [row(shard, 0, "cat", key="0")], shard=shard)
    assert export("imagefolder", "webdataset", "coco") == [
        "in/metadata.jsonl",
        "in/t.labels.tar",
        "out/dataset/coco.json",
    ]
    assert len(json.loads((tmp_path / "out/dataset/coco.json").read_text())["images"]) == 4
