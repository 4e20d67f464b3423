"""Our loader and PyTorch's in turn, as a table: loader.py BENCH_BINARY CIFAR_ROOT [ROUNDS].

    cargo bench -p logitcask-dataset --no-run     # prints the path of BENCH_BINARY
    python benches/peers/loader.py target/release/deps/loader-... data/datasets/cifar10

JPEG images of 500x375 are made on the spot. Each round runs every case once for both, so that a busy machine troubles
all alike; the medians are what counts, and ratios travel further than rates.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PEER = Path(__file__).with_name("loader_torch.py")
N_IMAGES = 512


def make_images(root):
    """Photograph-like JPEGs: a few octaves of noise, quality 90, about as many bytes as ImageNet's of this size."""
    rng = np.random.default_rng(5)
    for index in range(N_IMAGES):
        pixels = np.zeros((375, 500, 3))
        for octave, weight in ((4, 90), (16, 50), (64, 24), (200, 14)):
            noise = rng.normal(0, 1, (octave * 3 // 4, octave, 3)).clip(-3, 3)
            noise = Image.fromarray(((noise + 3) * 42).astype(np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
            pixels += weight * (np.asarray(noise) / 42.0 - 3)
        folder = root / "train" / f"class{index % 8}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((128 + pixels / 2).clip(0, 255).astype(np.uint8)).save(folder / f"{index:05}.jpg", quality=90)
    sizes = [path.stat().st_size for path in root.rglob("*.jpg")]
    print(f"{N_IMAGES} JPEGs of 500x375, {statistics.mean(sizes) / 1000:.0f} kB on average", file=sys.stderr)


def rate(command, case, root):
    result = subprocess.run([*command, case, str(root), "2", "4"], check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def main():
    binary, cifar = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    ours, peer = [binary], [sys.executable, str(PEER)]
    with tempfile.TemporaryDirectory() as folder:
        jpeg = Path(folder)
        make_images(jpeg)
        runs = [
            ("CIFAR crop, flip, normalise", "PyTorch", peer, "cifar", cifar),
            ("CIFAR crop, flip, normalise", "ours", ours, "cifar", cifar),
            ("JPEG, random resized crop 224", "PyTorch", peer, "jpeg", jpeg),
            ("JPEG, random resized crop 224", "ours", ours, "jpeg", jpeg),
            ("the same, 8 views per decoding", "ours", ours, "jpeg8", jpeg),
            ("the same, from decoded pixels", "ours", ours, "store", jpeg),
            ("JPEG decoding alone", "PyTorch", peer, "decode", jpeg),
            ("JPEG decoding alone", "ours", ours, "decode", jpeg),
        ]
        rates = {run[:2]: [] for run in runs}
        for _ in range(rounds):
            for what, who, command, case, root in runs:
                rates[what, who].append(rate(command, case, root))
    base = {"CIFAR crop, flip, normalise": None, "JPEG decoding alone": None}
    print("| images/s, 2 threads or workers | PyTorch | ours | ratio |\n|---|---|---|---|")
    for what in dict.fromkeys(what for what, _ in rates):
        reference = what if what in base else "JPEG, random resized crop 224"
        theirs, mine = (statistics.median(rates[key]) for key in ((reference, "PyTorch"), (what, "ours")))
        print(f"| {what} | {theirs:.0f} | {mine:.0f} | {mine / theirs:.2f} |")


if __name__ == "__main__":
    main()
