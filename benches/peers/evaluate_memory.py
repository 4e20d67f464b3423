"""Bytes that inference under `torch.no_grad()` adds to an idle process, at its peak: the peer of the example `evaluate_memory`.

    python evaluate_memory.py --student resnet110 --batch-size 256

The process is idle with the network built; the batch of images is part of what is added, as it is there.
"""

import argparse
from pathlib import Path

import torch
from models_torch import MODELS, build


def status_kib(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", choices=MODELS, default="resnet20")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    _, image_size, n_classes, _ = MODELS[arguments.student]
    model = build(arguments.student, n_classes, image_size=image_size).eval()
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    idle = status_kib("VmRSS:")
    with torch.no_grad():
        pixels = torch.randn(arguments.batch_size, 3, image_size, image_size).to(memory_format=layout)
        model(pixels)
    added = (status_kib("VmHWM:") - idle) / 1024
    print(f"{arguments.student}: {arguments.batch_size} images, {layout}: {added:.0f} MiB above {idle / 1024:.0f}")


if __name__ == "__main__":
    main()
