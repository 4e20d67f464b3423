"""Seconds per training step of a student in PyTorch, on random data: the peer of `logitcask bench step`.

    python step_torch.py --student resnet8x4 --mode compile --threads 1

Prints one JSON object per mode with the keys `median_s` and `min_s`, as `bench step --json` does. A step is forward,
cross-entropy, backward and SGD with momentum 0.9 and weight decay 5e-4.
"""

import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
from models_torch import MODELS, build

MODES = ("eager", "channels_last", "compile")


def measure(arguments, mode):
    torch.manual_seed(0)
    model = build(arguments.student, arguments.classes).train()
    image_size = MODELS[arguments.student][1]
    x = torch.randn(arguments.batch_size, 3, image_size, image_size)
    labels = torch.arange(arguments.batch_size) % arguments.classes
    if mode != "eager":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    forward = torch.compile(model) if mode == "compile" else model
    precision = contextlib.nullcontext
    if arguments.precision == "bf16":
        precision = lambda: torch.autocast("cpu", dtype=torch.bfloat16)  # noqa: E731

    def step():
        optimizer.zero_grad()
        with precision():
            loss = F.cross_entropy(forward(x), labels)
        loss.backward()
        optimizer.step()

    for _ in range(arguments.warmup):
        step()
    while True:
        start, busy = time.perf_counter(), time.process_time()
        step()
        yield time.perf_counter() - start, time.process_time() - busy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", choices=MODELS, default="resnet8x4")
    parser.add_argument("--mode", choices=(*MODES, "all"), default="all")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    modes = MODES if arguments.mode == "all" else (arguments.mode,)
    running = {mode: measure(arguments, mode) for mode in modes}
    # Interleaved, so that a noisy neighbour disturbs all alike.
    seconds = {mode: [] for mode in modes}
    for _ in range(arguments.steps):
        for mode in modes:
            seconds[mode].append(next(running[mode]))
    for mode in modes:
        row = {
            "peer": "torch",
            "version": torch.__version__,
            "student": arguments.student,
            "mode": mode,
            "precision": arguments.precision,
            "batch_size": arguments.batch_size,
            "threads": arguments.threads,
            "median_s": round(statistics.median(wall for wall, _ in seconds[mode]), 5),
            "min_s": round(min(wall for wall, _ in seconds[mode]), 5),
            "processor_s": round(statistics.median(busy for _, busy in seconds[mode]), 5),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
