"""Other programs read what we write: `python tests/readers.py CACHES EXPORTS` (needs pyarrow, pandas, polars, duckdb, datasets).

CACHES holds caches of one capture in several encodings and their Parquet archives, EXPORTS the export of each cache under
the cache's name. The exports are the truth: our own decoder wrote them, as f32. Every reader must find exactly these
rows in every chunk, or fail as `CANNOT` says it does. Prints the table of readers and files.
"""

import json
import pathlib
import sys

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet


def main() -> int:
    caches, exports = map(pathlib.Path, sys.argv[1:])
    found = {}
    for folder in sorted(caches.iterdir()):
        is_archive = folder.name.endswith(".parquet")
        about = json.loads((folder / ("archive.json" if is_archive else "cache.json")).read_text())
        encoding = about["encoding"]
        truth = exported(exports / folder.name.removesuffix(".parquet"))
        kind = f"{encoding} archive" if is_archive else f"{encoding} chunk"
        for view in sorted(folder.glob("view=*")):
            for path in sorted(view.glob("part-*")):
                for reader, read in (PARQUET if is_archive else ARROW).items():
                    answer = outcome(lambda: agrees(read(path), int(view.name[5:]), encoding, truth))
                    found.setdefault((kind, reader), answer)
                    assert found[kind, reader] == answer, f"{reader} reads some of {kind} and not {path}: {answer}"
    for folder in sorted(exports.iterdir()):
        about = json.loads((folder / "cache.json").read_text())
        truth = exported(folder)
        for reader, read in EXPORT.items():
            kind = f"{about['encoding']} export"
            found[kind, reader] = outcome(lambda: whole(read(folder), truth))
    readers = ["pyarrow", "pandas", "polars", "DuckDB", "HF datasets"]
    print("| | " + " | ".join(readers) + " |\n|---" + "|---" * len(readers) + "|")
    for kind in dict.fromkeys(kind for kind, _ in found):
        print(f"| {kind} | " + " | ".join(found.get((kind, reader), "-") for reader in readers) + " |")
    wrong = {case: answer for case, answer in found.items() if (answer == "yes") == (case in CANNOT)}
    for case, answer in wrong.items():
        print(f"expected otherwise: {case}: {answer}")
    return 1 if wrong or not found else 0


# What is known not to work, with the versions that `tests/full.sh` installs.
# DuckDB takes half precision from Parquet but not from Arrow.
CANNOT = {("f16 chunk", "DuckDB"), ("top3 chunk", "DuckDB")}


def outcome(read) -> str:
    try:
        read()
        return "yes"
    except AssertionError:
        raise
    except Exception as error:  # a reader may fail in any way that it likes
        return f"no ({type(error).__name__}: {str(error).splitlines()[0][:60]})"


def exported(folder: pathlib.Path) -> dict:
    """Rows of an export by (view, sample), by pyarrow."""
    table = pa.parquet.read_table(sorted((folder / "data").glob("*.parquet")))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return {(v, s): {n: columns[n][i] for n in columns} for i, (v, s) in enumerate(zip(columns["view"], columns["sample"]))}


def agrees(rows: dict, view: int, encoding: str, truth: dict) -> None:
    """`rows` are the columns of one chunk, as lists; decoded by docs/format.md they must be the exported ones."""
    for i, sample in enumerate(rows["sample"]):
        expected = truth[view, sample]
        assert rows["label"][i] == expected["label"]
        stored = rows["logits"][i]
        if expected["logits"] is None:
            assert stored is None
            continue
        stored = np.asarray(stored)
        if encoding == "u8":
            scale, minimum = np.asarray(rows["affine"][i], np.float32)
            logits = minimum + scale * stored.astype(np.float32)
        elif encoding == "bf16" and stored.dtype.kind in "iu":
            logits = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            logits = stored.astype(np.float32)
        assert np.array_equal(logits, np.asarray(expected["logits"], np.float32)), (view, sample)
        for name in ("classes", "mean", "deviation", "label_logit", "rest"):
            if name in expected:
                assert np.array_equal(np.asarray(rows[name][i], np.float64), np.asarray(expected[name], np.float64)), name


def whole(rows: dict, truth: dict) -> None:
    assert len(rows["sample"]) == len(truth)
    for i, key in enumerate(zip(rows["view"], rows["sample"])):
        for name, value in truth[key].items():
            mine = rows[name][i]
            if value is None:
                assert mine is None
            else:
                assert np.array_equal(np.asarray(mine, np.float64), np.asarray(value, np.float64), equal_nan=True), name


def lists(table: pa.Table) -> dict:
    return {name: table[name].to_pylist() for name in table.column_names}


def of_pandas(frame: pandas.DataFrame) -> dict:
    return {name: list(frame[name]) for name in frame}


def of_polars(frame: polars.DataFrame) -> dict:
    return {name: frame[name].to_list() for name in frame.columns}


def of_duckdb(relation) -> dict:
    return dict(zip(relation.columns, zip(*relation.fetchall())))


def arrow_table(path: pathlib.Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def by_duckdb_from_arrow(path: pathlib.Path) -> dict:
    rows = arrow_table(path)
    return of_duckdb(duckdb.sql("from rows"))


ARROW = {
    "pyarrow": lambda path: lists(arrow_table(path)),
    "pandas": lambda path: of_pandas(pandas.read_feather(path)),
    "polars": lambda path: of_polars(polars.read_ipc(path)),
    "DuckDB": by_duckdb_from_arrow,
    "HF datasets": lambda path: lists(datasets.Dataset(arrow_table(path)).data.table),
}
PARQUET = {
    "pyarrow": lambda path: lists(pa.parquet.ParquetFile(path).read()),
    "pandas": lambda path: of_pandas(pandas.read_parquet(path, partitioning=None)),
    "polars": lambda path: of_polars(polars.read_parquet(path, hive_partitioning=False)),
    "DuckDB": lambda path: of_duckdb(duckdb.read_parquet(str(path), hive_partitioning=False)),
    "HF datasets": lambda path: lists(datasets.Dataset.from_parquet(str(path), cache_dir=scratch()).data.table),
}
EXPORT = {
    "pyarrow": lambda folder: lists(pa.parquet.read_table(sorted((folder / "data").glob("*.parquet")))),
    "pandas": lambda folder: of_pandas(pandas.read_parquet(folder / "data")),
    "polars": lambda folder: of_polars(polars.read_parquet(folder / "data" / "*.parquet")),
    "DuckDB": lambda folder: of_duckdb(duckdb.read_parquet(str(folder / "data" / "*.parquet"))),
    "HF datasets": lambda folder: lists(
        datasets.load_dataset(str(folder), split="train", cache_dir=scratch()).data.table
    ),
}


def scratch() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="logitcask-readers-")


if __name__ == "__main__":
    sys.exit(main())
