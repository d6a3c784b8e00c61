"""Nearest neighbours and near-duplicates over the embeddings that `jobs/extract_features.py` wrote, in DuckDB.

    python examples/find_similar.py --features features --image-id file:///photos/cat.jpg --neighbours 10
    python examples/find_similar.py --features features --duplicates 0.99

Similarity is the cosine of two embeddings. The script compares every pair, which suits tens of thousands of images. For
more images, use an index (DuckDB's `vss`, FAISS).
"""

import argparse
import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a clone runs without being installed

from jobs.cli.printable import printable

_FEATURES = """
    CREATE TEMP TABLE features AS
    SELECT image_id, embedding::FLOAT[{channels}] AS embedding FROM read_parquet($files) WHERE status = 'ok'
"""
_NEIGHBOURS = """
    SELECT other.image_id, array_cosine_similarity(query.embedding, other.embedding) AS similarity
    FROM features query, features other
    WHERE query.image_id = $image_id AND other.image_id <> query.image_id
    ORDER BY similarity DESC, other.image_id LIMIT $neighbours
"""
_DUPLICATES = """
    SELECT one.image_id, other.image_id AS other_id,
           array_cosine_similarity(one.embedding, other.embedding) AS similarity
    FROM features one JOIN features other ON one.image_id < other.image_id
    WHERE similarity >= $threshold
    ORDER BY similarity DESC, one.image_id, other.image_id
"""


def open_features(output: str) -> duckdb.DuckDBPyConnection:
    """Returns a database with the table `features`, which has the successful rows of an output.

    Raises:
        ValueError: The output has no successful rows, or no embeddings.
    """
    database, files = duckdb.connect(), f"{output.rstrip('/')}/data/*.parquet"
    try:
        lengths = "SELECT len(embedding) FROM read_parquet($files) WHERE status = 'ok' LIMIT 1"
        found = database.execute(lengths, {"files": files}).fetchone()
    except (duckdb.IOException, duckdb.BinderException) as error:
        raise ValueError(f"{output} has no features: {str(error).splitlines()[0]}") from error
    if found is None:
        raise ValueError(f"{output} has no row that is ok")
    database.execute(_FEATURES.format(channels=found[0]), {"files": files})
    return database


def neighbours(database: duckdb.DuckDBPyConnection, image_id: str, count: int) -> list[tuple[str, float]]:
    """Returns (image id, similarity) of the images that are most similar to one image, the most similar first.

    Raises:
        ValueError: The table has no image with this id.
    """
    if not database.execute("SELECT 1 FROM features WHERE image_id = $id", {"id": image_id}).fetchone():
        raise ValueError(f"{image_id} is not among the images; give an image_id as it stands in the output")
    return database.execute(_NEIGHBOURS, {"image_id": image_id, "neighbours": count}).fetchall()


def duplicates(database: duckdb.DuckDBPyConnection, threshold: float) -> list[tuple[str, str, float]]:
    """Returns (image id, image id, similarity) of the pairs with at least this similarity, the most similar first."""
    return database.execute(_DUPLICATES, {"threshold": threshold}).fetchall()


def main() -> None:
    """Reads the flags, queries the features, and prints a line for each result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", required=True, metavar="OUTPUT", help="the output of extract_features")
    parser.add_argument("--image-id", help="find the images most like this one")
    parser.add_argument("--neighbours", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--duplicates", type=float, metavar="SIMILARITY", help="list pairs of at least this similarity")
    flags = parser.parse_args()
    if (flags.image_id is None) == (flags.duplicates is None):
        parser.error("give either --image-id or --duplicates")
    try:
        database = open_features(flags.features)
        if flags.image_id is not None:
            for image_id, similarity in neighbours(database, flags.image_id, flags.neighbours):
                print(f"{similarity:.4f}  {printable(image_id)}")
        else:
            for one, other, similarity in duplicates(database, flags.duplicates):
                print(f"{similarity:.4f}  {printable(one)}  {printable(other)}")
    except ValueError as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
