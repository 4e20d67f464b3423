"""Compare our pixels of drawn JPEGs with Pillow's: jpeg_sweep.py N [SEED], or jpeg_sweep.py golden to write the digests that
`make test` looks at. Fails on any difference, on refusals and on panics."""

import collections
import hashlib
import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "crates/jpeg/tests/golden.txt"
REDUCTIONS = (1, 2, 4, 8)


def pillow(data, reduction):
    """As `Image.open(...).convert("RGB")`, grey ones as they are; reduced as `draft` does it, which only asks by size."""
    image = Image.open(io.BytesIO(data))
    if reduction > 1:
        image.size  # noqa: B018
        (codec, (x0, y0, x1, y1), offset, arguments), = image.tile
        width, height = ((side + reduction - 1) // reduction for side in (x1, y1))
        image._size = (width, height)
        image.tile = [(codec, (0, 0, width, height), offset, arguments)]
        image.decoderconfig = (reduction, 0)
    if image.mode != "L":
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def main():
    is_golden = sys.argv[1] == "golden"
    n = 200 if is_golden else int(sys.argv[1])
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    command = ["cargo", "run", "--quiet", "--release", "-p", "logitcask-jpeg", "--example", "sweep", "--", str(n), seed]
    stream = io.BytesIO(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)

    def number():
        return struct.unpack("<I", stream.read(4))[0]

    warnings.simplefilter("ignore")
    counts, worst, lines, bad = collections.Counter(), collections.Counter(), [], []
    for index in range(n):
        data = stream.read(number())
        digests = []
        for reduction in REDUCTIONS:
            status = number()
            if status:
                what, reason = ("refused", "panicked")[status - 1], stream.read(number()).decode()
            else:
                shape = number(), number(), number()
                ours = np.frombuffer(stream.read(int(np.prod(shape))), np.uint8).reshape(shape)
                what, reason = "decoded", ""
            try:
                theirs = pillow(data, reduction)
            except Exception as error:  # noqa: BLE001
                reason += f" (Pillow too: {error})"
                counts[f"{what} {reason}"] += 1
                bad.append(index)
                continue
            digests.append(hashlib.sha256(theirs.tobytes()).hexdigest()[:16])
            counts[f"{what} {reason}".strip()] += 1
            if status:
                bad.append(index)
                continue
            if theirs.shape != ours.shape:
                print(f"file {index} at 1/{reduction}: {ours.shape}, where Pillow has {theirs.shape}")
                bad.append(index)
                continue
            difference = int(np.abs(theirs.astype(int) - ours).max())
            worst[difference] += 1
            if difference:
                bad.append(index)
        lines.append(" ".join(digests))
    print(f"{n} files of seed {seed} at {REDUCTIONS}, Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}")
    for what, count in sorted(counts.items()):
        print(f"{count:7} {what}")
    print("levels of difference: pictures", dict(sorted(worst.items())))
    if is_golden:
        GOLDEN.write_text("\n".join(lines) + "\n")
    if bad:
        sys.exit(f"{len(bad)} wrong, the first of file {sorted(set(bad))[:20]}")


main()
