"""Our loader and PyTorch's in turn, as a table: loader.py BENCH_BINARY CIFAR_ROOT IMAGES [ROUNDS].

    cargo bench -p logitcask-dataset --no-run     # prints the path of BENCH_BINARY
    python benches/peers/loader.py target/release/deps/loader-... data/datasets/cifar10 /tmp/images

JPEG images of 500x375 are made in the folder IMAGES, once, in two sizes of file: about 43 kB (quality 90) and about
107 kB (quality 95 and more noise), which is nearer to ImageNet's. Each round runs every case once for both, so that a busy
machine troubles all alike; the medians are what counts, and ratios travel further than rates.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

PEER = Path(__file__).with_name("loader_torch.py")
N_IMAGES = 256
KINDS = {
    "43 kB": (90, ((4, 90), (16, 50), (64, 24), (200, 14))),
    "107 kB": (95, ((4, 90), (16, 50), (64, 30), (250, 36))),
}


def make_images(root, quality, octaves):
    """Photograph-like JPEGs: a few octaves of noise, chroma halved in both directions as cameras do."""
    if root.exists():
        return
    rng = np.random.default_rng(5)
    for index in range(N_IMAGES):
        pixels = np.zeros((375, 500, 3))
        for octave, weight in octaves:
            noise = rng.normal(0, 1, (octave * 3 // 4, octave, 3)).clip(-3, 3)
            noise = Image.fromarray(((noise + 3) * 42).astype(np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
            pixels += weight * (np.asarray(noise) / 42.0 - 3)
        folder = root / "train" / f"class{index % 8}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (128 + pixels / 2).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05}.jpg", quality=quality, subsampling=2)


def rate(command, case, root):
    result = subprocess.run([*command, case, str(root), "2", "3"], check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def main():
    binary, cifar, images = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    for kind, (quality, octaves) in KINDS.items():
        make_images(images / kind.replace(" ", ""), quality, octaves)
    if rounds == 0:
        return
    ours, peer = [binary], [sys.executable, str(PEER)]
    # (what, our case, PyTorch's case, images): PyTorch's rate of a case is measured once a round.
    rows = [("CIFAR: crop, flip, normalise", "cifar", "cifar", cifar)]
    for kind in KINDS:
        root = images / kind.replace(" ", "")
        rows += [
            (f"JPEG of {kind}: random resized crop 224, flip, normalise", "jpeg", "jpeg", root),
            (f"JPEG of {kind}: the same, `reduced = true`", "reduced", "jpeg", root),
            (f"JPEG of {kind}: the same, 8 views per decoding", "jpeg8", "jpeg", root),
            (f"JPEG of {kind}: the same, `store_pixels = true`", "store", "jpeg", root),
            (f"JPEG of {kind}: decoding alone, whole images", "decode", "decode", root),
        ]
    rates = {}
    for _ in range(rounds):
        seen = set()
        for what, case, their_case, root in rows:
            if (their_case, root) not in seen:
                seen.add((their_case, root))
                rates.setdefault((their_case, root, peer[0]), []).append(rate(peer, their_case, root))
            rates.setdefault((case, root, binary), []).append(rate(ours, case, root))
    print(f"{rounds} rounds of 3 s, {os.cpu_count()} cores; torch {torch.__version__}, torchvision {torchvision.__version__}, "
          f"Pillow {PIL.__version__}\n")
    print("| images/s, 2 threads or workers | PyTorch | ours | ratio |\n|---|---:|---:|---:|")
    for what, case, their_case, root in rows:
        theirs = statistics.median(rates[their_case, root, peer[0]])
        mine = statistics.median(rates[case, root, binary])
        print(f"| {what} | {theirs:.0f} | {mine:.0f} | {mine / theirs:.2f} |")
    print()
    for kind in KINDS:
        root = images / kind.replace(" ", "")
        result = subprocess.run([binary, "difference", str(root)], check=True, capture_output=True, text=True)
        print(f"{kind}, reduced against full decoding: {result.stdout.strip()}")


if __name__ == "__main__":
    main()
