"""Gathers rows from our caches and from numpy memmaps, in turn, one thread on each side.

    cargo build --release -p logitcask-cache --example gather
    python3 benches/peers/gather_numpy.py target/release/examples/gather FOLDER [ROUNDS]

Needs numpy, and a machine that does nothing else. FOLDER is filled with some 2.5 GB. Prints a Markdown table: the median
over rounds of million rows a second, and of the ratio of neighbours in time. Ours computes each row's CRC-32C and gives
labels; numpy checks nothing.
"""
import os, statistics, subprocess, sys, time

os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
import numpy as np

gather, folder, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 7
SECONDS = 0.3
SIZES = [(100, 2_000_000), (1000, 200_000), (100, 50_000)]  # two beyond any last-level cache, and one view of CIFAR-100


def ours(*arguments):
    return subprocess.run([gather, *map(str, arguments)], check=True, capture_output=True, text=True).stdout.strip()


def memmap(encoding, n_classes, n_samples):
    """The same logits as our cache, dense, as anybody would keep them with numpy."""
    path = f"{folder}/{encoding}-{n_classes}-{n_samples}.bin"
    dtype = {"f16": np.float16, "f32": np.float32, "u8": np.uint8}[encoding]
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for first in range(0, n_samples, 10_000):
                flat = np.arange(first * n_classes, (first + 10_000) * n_classes, dtype=np.int64)
                file.write(((flat * 7919 % 1000) / 100 - 5).astype(np.float32).astype(dtype).tobytes())
    return np.memmap(path, dtype, "r", shape=(n_samples, n_classes))


def numpy_rate(rows, order, batch):
    def epoch():
        for at in range(0, len(order) - batch + 1, batch):
            rows.take(order[at : at + batch], axis=0).astype(np.float32)
    epoch()
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        epoch()
        n += len(order) // batch * batch
    return n / (time.perf_counter() - started)


cases = []
for n_classes, n_samples in SIZES:
    order = np.random.default_rng(1).permutation(n_samples)
    for encoding in ["f16", "u8", "f32"]:
        cache = ours("make", folder, encoding, n_classes, n_samples)
        rows = memmap(encoding, n_classes, n_samples)
        cases += [(n_classes, n_samples, encoding, batch, cache, rows, order) for batch in (64, 1024)]

found = {case[:4]: [] for case in cases}
memcpy = []
for _ in range(rounds):
    memcpy.append(float(ours("memcpy", SECONDS)))
    for n_classes, n_samples, encoding, batch, cache, rows, order in cases:
        mine = float(ours("run", cache, batch, SECONDS))
        found[n_classes, n_samples, encoding, batch].append((mine, numpy_rate(rows, order, batch)))

bandwidth = statistics.median(memcpy)
print(f"numpy {np.__version__}; memcpy {bandwidth:.1f} GB/s read + written\n")
print("| C | rows | encoding | batch | ours, Mrows/s | numpy, Mrows/s | ratio | ours, GB/s read + written | of memcpy |")
print("|---|---|---|---|---|---|---|---|---|")
for (n_classes, n_samples, encoding, batch), pairs in found.items():
    mine, theirs = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    row_bytes = n_classes * ({"f16": 2, "u8": 1, "f32": 4}[encoding] + 4)
    rate = mine * row_bytes / 1e9
    print(f"| {n_classes} | {n_samples:,} | {encoding} | {batch} | {mine / 1e6:.2f} | {theirs / 1e6:.2f} | {ratio:.1f} | {rate:.1f} | {rate / bandwidth:.2f} |")
