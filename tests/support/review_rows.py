"""A small data set to review, whose names are hostile here and there, and its page."""

import io
import json
import re
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.review_labels import main
from pipeline.dataset.labels import LABEL_SCHEMA
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath

STORE = StoreConfig()
HOSTILE = "</script><script>document.title='planted'</script>\"><img src=x onerror=\"document.title='planted'\">,\r\n"


def encoded(colour, size=(400, 300), image_format="JPEG"):
    body = io.BytesIO()
    Image.new("RGB", size, colour).save(body, image_format)
    return body.getvalue()


def etag_of(path):
    return StorePath(f"file://{path}", STORE).head().etag


def row(image_id, shard, score, guess, **more):
    values = {
        "image_id": image_id, "shard": shard, "row": 0, "decision": "review", "reason": "score.low", "score": score,
        "label": guess, "label_source": None if guess is None else "model", "model_label": guess, "changed_run": "run",
    }  # fmt: skip
    return {**dict.fromkeys(LABEL_SCHEMA.names), **values, **more}


def loose_row(path, score, guess, **more):
    return row(f"file://{path}", "files:0123456789abcdef", score, guess, **{"source_etag": etag_of(path), **more})


def shard_row(path, key, number, score, guess, **more):
    etag = {"source_etag": etag_of(path), "key": key, "row": number}
    return row(f"file://{path}#{key}", f"file://{path}", score, guess, **{**etag, **more})


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def make_output(folder):
    """An output of eight rows, six of which are to be reviewed; loose images and a tar lie in `photos` beside it."""
    photos = folder / "photos"
    photos.mkdir()
    for name, colour in (("cat", "red"), ("dog", "blue"), ("cow", "green")):
        (photos / f"{name}.jpg").write_bytes(encoded(colour))
    hostile = "'\"><img src=x onerror=document.title=1>.png"
    write_tar(
        photos / "shard.tar",
        [
            ("a.jpg", encoded("yellow")),
            ("a.cls", b"owl"),
            ("broken.jpg", b"\xff\xd8\xff no"),
            (hostile, encoded("pink")),
        ],
    )
    tar = photos / "shard.tar"
    rows = [
        loose_row(photos / "cat.jpg", 0.30, "cat"),
        loose_row(photos / "dog.jpg", 0.20, "n02084071", label="dog", true_label="wolf"),
        loose_row(photos / "cow.jpg", 0.99, "cow", decision="accepted", reason=None),
        shard_row(tar, "a.jpg", 0, 0.10, "cat"),
        shard_row(tar, hostile, 2, 0.50, HOSTILE, reason=HOSTILE),
        row(f"s3://bucket/{HOSTILE}", "files:0", None, None, reason="decode.crashed", error_code="decode.crashed"),
        row("file:///gone.jpg", "files:0", 0.40, "=1+1", source_etag='"etag, quoted"'),
        row("file:///x", "files:0", None, None, decision="failed", error_code="decode.corrupt"),
    ]
    output = folder / "output"
    (output / "dataset").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, LABEL_SCHEMA), output / "dataset" / "labels.parquet", row_group_size=3)
    return output


def make_page(output, html, *flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["review_labels", str(output), "--html", str(html), *flags])
    main()
    return html.read_text()


def sheet_of(text):
    """What the script reads, as a browser takes it apart."""
    return json.loads(re.search(r'<script type="application/json" id="sheet">(.*?)</script>', text, re.DOTALL)[1])
