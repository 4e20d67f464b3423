"""Write what each target starts from, one small valid input or a few, to fuzz/corpus/<target>/: python3 fuzz/seeds.py"""

import io
import json
import struct
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
FIXTURES = ROOT / "crates/dataset/tests/fixtures"


def seed(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def two_files(first, second):
    """As common.rs cuts them apart."""
    return struct.pack("<H", len(first)) + first + second


blob = (FIXTURES / "pixels.bin").read_bytes()
images = {}
for case in json.loads((FIXTURES / "pixels.json").read_text())["encoded"]:
    place = case["file"]
    images[case["name"]] = blob[place["offset"]:place["offset"] + place["bytes"]]
    seed("decode_image", case["name"], images[case["name"]])
    if case["name"].startswith("jpeg"):
        seed("decode_jpeg", case["name"], images[case["name"]])
for path in (ROOT / "crates/jpeg/tests/cases").glob("*.jpg"):
    seed("decode_jpeg", path.stem, path.read_bytes())

seed("open_cifar", "two_records", b"".join(bytes([label]) + bytes(range(256)) * 12 for label in (3, 9)))
seed("open_cifar", "fine_labels", bytes([1, 77]) + bytes(3072))
labels = struct.pack(">II", 0x0801, 2) + bytes([3, 1])
seed("open_idx", "two_images", two_files(labels, struct.pack(">IIII", 0x0803, 2, 4, 5) + bytes(range(40))))
seed("open_stl10", "one_image", two_files(bytes([10]), bytes(27648)))

for style, called in ((tarfile.USTAR_FORMAT, "ustar"), (tarfile.GNU_FORMAT, "gnu"), (tarfile.PAX_FORMAT, "pax")):
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w", format=style) as archive:
        long = "folder/" * 20 if called != "ustar" else ""
        members = {"0.png": images["png_grey"], "0.cls": b"3", f"{long}1.jpg": images["jpeg_grey"],
                   f"{long}1.json": b'{"label": 1}'}
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    seed("open_webdataset", called, shard.getvalue())

# The smaller of the embedded digits' files: a real one, as `datasets` writes them.
smallest = min((ROOT / "data/digits").rglob("*.parquet"), key=lambda path: path.stat().st_size)
seed("open_parquet", smallest.stem, smallest.read_bytes())
seed("open_cache", "a_patch", bytes(range(16)))
