"""`python jobs/extract_features.py` end to end, and its rows as each reader sees them."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from examples.feature_dataset import FeatureDataset
from examples.find_similar import duplicates, neighbours, open_features
from jobs.extract_features import extract_features
from model.checkpoints.load import load_checkpoint, save_checkpoint
from model.network.pvt_v2 import PVTv2
from model.packed import run_packed
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import decode_image

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHANNELS = 64
NUM_PHOTOS = 14
BROKEN = "07.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("in")
    for index in range(NUM_PHOTOS):
        # The last is the first once more.
        (folder / f"{index:02d}.png").write_bytes(draw(index % (NUM_PHOTOS - 1)))
    (folder / BROKEN).write_bytes(b"no image")
    return folder


@pytest.fixture
def extracted(photos, tiny_weights, tmp_path, run_here):
    """(flags) -> the output of a run over the photos."""

    def run(*flags):
        output = tmp_path / "-".join(["out", *map(str, flags)])
        common = ("--input", photos, "--weights", tiny_weights, "--output", output, "--max-failed-fraction", 0.5)
        result = run_here(*common, "--precision", "fp32", *flags, command=extract_features)
        assert result.code == 0, result.stderr
        assert (result.summary["ok"], result.summary["failed"]) == (NUM_PHOTOS - 1, 1)
        return output

    return run


@pytest.fixture
def expected(photos, tiny_weights):
    """{key: (embedding, four maps)} of each photo alone, as numpy arrays."""
    loaded, found = load_checkpoint(tiny_weights), {}
    for path in sorted(photos.iterdir()):
        if path.name != BROKEN:
            image = torch.from_numpy(decode_image(path.read_bytes(), SizePolicy()).pixels.copy())
            output = run_packed(loaded.model, [image], mean=loaded.mean, std=loaded.std, outputs=("embedding", "maps"))
            found[path.name] = output.embedding[0].numpy(), [map_CHW.numpy() for map_CHW in output.maps[0]]
    return found


def test_the_features_of_each_photo_are_read_back_by_every_reader(extracted, expected, tmp_path):
    """One run, since each reader must see the same rows."""
    output = extracted("--stages", "1,4", "--rows-per-file", 5)
    files = sorted(map(str, (output / "data").glob("*.parquet")))
    assert len(files) == 3
    for reader in (read_with_pyarrow, read_with_pandas, read_with_polars, read_with_duckdb):
        _check(reader(files, output), expected, reader.__name__)
    _check(read_with_datasets(files, tmp_path), expected, "datasets")
    for column, stage in (("embedding", None), ("stage1", 0), ("stage4", 3)):
        dataset = FeatureDataset(output, column)
        assert len(dataset) == NUM_PHOTOS - 1
        for image_id, tensor in dataset:
            embedding, maps = expected[Path(image_id).name]
            wanted = embedding if stage is None else maps[stage]
            assert tensor.dtype == torch.float16
            np.testing.assert_allclose(tensor.float(), wanted, rtol=0, atol=4e-3)
    with pytest.raises(IndexError):
        dataset[NUM_PHOTOS - 1]


def read_with_pyarrow(files, output):
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), CHANNELS)
    values = pa.large_list(pa.float16())
    assert table.schema.field("stage4").type == pa.struct([("shape", pa.list_(pa.int32(), 3)), ("data", values)])
    return {row["key"]: (row["embedding"], row["stage1"], row["stage4"]) for row in table.to_pylist()}


def read_with_pandas(files, output):
    frame = pandas.read_parquet(output / "data")
    ok = frame[frame.status == "ok"]
    assert {value.dtype for value in ok.embedding} == {np.dtype("float16")}
    assert {value["data"].dtype for value in ok.stage1} == {np.dtype("float16")}
    rows = zip(frame.key, frame.embedding, frame.stage1, frame.stage4, strict=True)
    return {key: features for key, *features in rows}


def read_with_polars(files, output):
    frame = polars.read_parquet(files)
    assert frame.schema["embedding"] == polars.Array(polars.Float16, CHANNELS)
    rows = frame.select("key", "embedding", "stage1", "stage4").iter_rows()
    return {key: features for key, *features in rows}


def read_with_duckdb(files, output):
    found = duckdb.sql("SELECT key, embedding, stage1, stage4 FROM read_parquet($files)", params={"files": files})
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    assert types["stage4"].startswith("STRUCT(shape INTEGER[")
    return {key: features for key, *features in found.fetchall()}


def read_with_datasets(files, folder):
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    assert rows.features["embedding"] == datasets.List(datasets.Value("float16"), length=CHANNELS)
    return {row["key"]: (row["embedding"], row["stage1"], row["stage4"]) for row in rows}


def _check(found, expected, reader):
    assert sorted(found) == sorted([*expected, BROKEN]), reader
    embedding, *stages = found.pop(BROKEN)
    assert embedding is None, reader
    # Some readers give a null struct as one of nulls.
    assert all(stage is None or stage["data"] is None for stage in stages), reader
    for key, (embedding, stage1, stage4) in found.items():
        wanted_embedding, maps = expected[key]
        np.testing.assert_allclose(np.float32(embedding), wanted_embedding, rtol=0, atol=4e-3, err_msg=reader)
        for stage, wanted in ((stage1, maps[0]), (stage4, maps[3])):
            assert tuple(stage["shape"]) == wanted.shape, reader
            values = np.float32(stage["data"]).reshape(wanted.shape)
            np.testing.assert_allclose(values, wanted, rtol=0, atol=4e-3, err_msg=reader)


@pytest.mark.drill
def test_a_run_over_features_resumes_refuses_others_and_retries_what_failed(
    extracted, photos, tiny_weights, run_here, draw
):
    output = extracted("--l2-normalize", "--feature-dtype", "float32", "--stages", "4")
    common = ("--input", photos, "--weights", tiny_weights, "--output", output, "--l2-normalize", "--stages", 4)
    same = (*common, "--feature-dtype", "float32")
    again = run_here(*same, command=extract_features)
    assert (again.code, again.summary["message"]) == (0, "nothing to do: every row is published")
    other = run_here(*common, command=extract_features)
    assert (other.code, 'feature_dtype ("float32" there, "float16" now)' in other.summary["error"]) == (5, True)
    before = pq.read_table(output / "data").sort_by("row")
    (photos / BROKEN).write_bytes(draw(99))
    try:
        mended = run_here(*same, command=extract_features)
    finally:
        (photos / BROKEN).write_bytes(b"no image")
    assert (mended.code, mended.summary["failed"], mended.summary["rows_in_output"]) == (0, 0, NUM_PHOTOS)
    after = pq.read_table(output / "data").sort_by("row")
    unchanged = [row for row in range(NUM_PHOTOS) if after["key"][row].as_py() != BROKEN]
    assert after.take(unchanged).equals(before.take(unchanged))
    (mended_row,) = after.take([row for row in range(NUM_PHOTOS) if row not in unchanged]).to_pylist()
    assert np.linalg.norm(mended_row["embedding"]) == pytest.approx(1, abs=1e-6)
    assert mended_row["stage4"]["shape"][0] == CHANNELS
    identity = json.loads((output / "_job.json").read_text())
    assert (identity["job"], identity["stages"], identity["l2_normalize"]) == ("extract_features", [4], True)
    assert identity["model"]["num_classes"] == 0


@pytest.mark.drill
def test_a_backbone_without_a_head_gives_the_same_features_and_is_refused_for_labels(
    photos, tiny_weights, extracted, tmp_path, run_here
):
    loaded = load_checkpoint(tiny_weights)
    config = replace(loaded.config, num_classes=0)
    backbone = PVTv2(config)
    backbone.load_state_dict({name: tensor for name, tensor in loaded.model.state_dict().items() if "head" not in name})
    save_checkpoint(backbone, config, None, tmp_path / "backbone")
    common = (
        "--input",
        photos,
        "--weights",
        tmp_path / "backbone",
        "--max-failed-fraction",
        0.5,
        "--precision",
        "fp32",
    )
    result = run_here(*common, "--output", tmp_path / "features", command=extract_features)
    assert result.code == 0, result.stderr
    tables = [pq.read_table(output / "data").sort_by("row") for output in (tmp_path / "features", extracted())]
    assert tables[0].column("embedding").equals(tables[1].column("embedding"))
    refused = run_here(*common, "--output", tmp_path / "labels")
    assert (refused.code, "a backbone without a head, which cannot classify" in refused.summary["error"]) == (4, True)


def test_similar_images_are_found_among_the_embeddings(extracted):
    database = open_features(str(extracted()))
    ids = {
        Path(image_id).name: image_id for (image_id,) in database.execute("SELECT image_id FROM features").fetchall()
    }
    first, twin = ids["00.png"], ids[f"{NUM_PHOTOS - 1:02d}.png"]
    (nearest, similarity), *others = neighbours(database, first, 3)
    assert nearest == twin
    assert similarity == pytest.approx(1, abs=1e-6)
    assert len(others) == 2
    assert others[0][1] >= others[1][1]
    assert [pair[:2] for pair in duplicates(database, 0.99999)] == [(first, twin)]
    with pytest.raises(ValueError, match="is not among the images"):
        neighbours(database, "nobody", 3)


def test_an_output_without_features_is_said(tmp_path):
    with pytest.raises(ValueError, match="has no features"):
        open_features(str(tmp_path))
