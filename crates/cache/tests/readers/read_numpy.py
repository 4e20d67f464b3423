"""Reads a cache with nothing but docs/format.md, pyarrow's IPC reader and numpy; checks every row, prints one line a row.

    python3 read_numpy.py CACHE
"""
import json, pathlib, struct, sys
import numpy as np, pyarrow as pa

TABLE = [0] * 256
for n in range(256):
    crc = n
    for _ in range(8):
        crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    TABLE[n] = crc

def crc32c(data, crc=0xFFFFFFFF):
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF

cache = pathlib.Path(sys.argv[1])
about = json.loads((cache / "cache.json").read_text())
for view in sorted(cache.glob("view=*/view.json")):
    number = json.loads(view.read_text())["view"]
    for chunk in json.loads(view.read_text())["chunks"]:
        table = pa.ipc.open_file(pa.memory_map(str(view.parent / chunk["file"]))).read_all()
        columns = [table[name].combine_chunks() for name in table.column_names[3:]]
        for row, (sample, label, check) in enumerate(zip(*(table[name].to_pylist() for name in ("sample", "label", "check")))):
            values = [np.atleast_1d(c[row].values.to_numpy() if hasattr(c[row], "values") else c[row].as_py()) for c in columns] if columns[0][row].is_valid else []
            data = b"".join(v.astype(np.float32 if v.dtype == np.float64 else v.dtype).tobytes() for v in values)
            assert [crc32c(struct.pack("<QII", sample, number, label) + data), label] == check, (number, sample)
            if not values: logits = "null"
            elif about["encoding"] == "u8": logits = values[0][1] + values[0][0] * values[1].astype(np.float32)
            elif about["encoding"] == "bf16": logits = (values[0].astype(np.uint32) << 16).view(np.float32)
            else: logits = values[0].astype(np.float32)
            print(number, sample, label, logits if isinstance(logits, str) else logits.tobytes().hex())
