"""Write train.parquet and test.parquet: the UCI optical digits in the Hugging Face image layout.

    pip install numpy pyarrow scikit-learn && python make_digits.py

Everything here is fixed: the source (1,797 images that scikit-learn carries), the scaling, the split and the
order. Pixels and labels come out the same everywhere; the bytes of the Parquet files also name the version of
pyarrow that wrote them, so SHA256SUMS holds for the version stated in ../README.md.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
CLASS_NAMES = [str(digit) for digit in range(10)]


def to_u8(ink):
    """Scale ink counts 0..16 to bytes: v * 255 / 16, rounded half to even (np.rint). The only tie is 8 -> 127.5 -> 128."""
    return np.rint(ink * (255 / 16)).astype(np.uint8)


def png(pixels):
    """One grey (H, W) image as PNG.

    The data go into one stored deflate block: 72 bytes hardly shrink, and compressed bytes would differ between
    versions of zlib.
    """

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey, not interlaced
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # filter 0 before each row
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows + struct.pack(">I", zlib.adler32(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stored) + chunk(b"IEND", b"")


def is_test(labels):
    """Within each class, in the order of the source, every third image (the 3rd, 6th, ...) is a test image."""
    test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[2::3]] = True
    return test


def write(path, indices, images, labels):
    """Write the images at `indices`, in that order, as rows `image: struct<bytes, path>, label: int64`."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": CLASS_NAMES, "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = {
        # The name keeps the position in the source, so that every image can be traced back.
        "image": [{"bytes": png(images[i]), "path": f"digits-{i:04}.png"} for i in indices],
        "label": [int(labels[i]) for i in indices],
    }
    pq.write_table(pa.table(rows, schema=schema), path, compression="zstd", row_group_size=500)
    print(f"{path.name}: {len(indices)} images, {path.stat().st_size} bytes, per class {np.bincount(labels[indices]).tolist()}")


def main():
    source = load_digits()
    images, labels = to_u8(source.images), source.target
    test = is_test(labels)
    write(HERE / "train.parquet", np.flatnonzero(~test), images, labels)
    write(HERE / "test.parquet", np.flatnonzero(test), images, labels)


if __name__ == "__main__":
    main()
