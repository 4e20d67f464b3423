"""Other programs read our Arrow chunks: `python tests/readers.py CACHE_DIR` (needs pyarrow, pandas, polars, duckdb).

Every reader must find the same rows in every chunk of every cache below CACHE_DIR.
"""

import json
import pathlib
import sys

import duckdb
import numpy as np
import polars
import pyarrow as pa


def main() -> int:
    chunks = sorted(pathlib.Path(sys.argv[1]).glob("*/view=*/part-*.arrow"))
    assert chunks, "no chunk was found"
    for path in chunks:
        manifest = json.loads((path.parent.parent / "cache.json").read_text())
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        rows = np.stack(table.column("logits").to_numpy(zero_copy_only=False)).astype(np.float32)
        assert rows.shape == (table.num_rows, manifest["n_classes"]), rows.shape
        by_pandas = np.stack(table.to_pandas()["logits"].to_numpy()).astype(np.float32)
        by_polars = np.array(polars.read_ipc(path)["logits"].to_list(), dtype=np.float32)
        plain = table.set_column(
            table.schema.get_field_index("logits"), "logits", pa.array(list(rows), pa.list_(pa.float32()))
        )
        assert plain.num_rows == table.num_rows
        ((by_duckdb,),) = duckdb.sql("select count(*) from plain where len(logits) > 0").fetchall()
        assert np.array_equal(rows, by_pandas), f"pandas differs in {path}"
        assert np.array_equal(rows, by_polars), f"polars differs in {path}"
        assert by_duckdb == table.num_rows, f"DuckDB differs in {path}"
    print(f"{len(chunks)} chunks: pyarrow, pandas, polars and DuckDB (through pyarrow) agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
