"""Seconds per training step of a student in PyTorch, on random data: the peer of `logitcask bench step`.

    python step_torch.py --student resnet8x4 --mode compile --threads 1
    python step_torch.py --student resnet8x4 --mode compile --device cuda --precision bf16

Prints a JSON object with the keys of `bench step --json`. A step is forward, cross-entropy, backward and SGD with
momentum 0.9 and weight decay 5e-4. With `--paced`, each measured step waits for a line on stdin and answers with its
seconds: step.py lets several of these and `logitcask bench step --paced` take turns.
"""

import argparse
import contextlib
import json
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from models_torch import MODELS, build

MODES = ("eager", "channels_last", "compile")


def stepper(arguments):
    """A function that makes one step."""
    torch.manual_seed(0)
    _, image_size, n_classes, _ = MODELS[arguments.student]
    image_size, n_classes = arguments.image_size or image_size, arguments.classes or n_classes
    model = build(arguments.student, n_classes, image_size=image_size).train()
    model = model.to(arguments.device)
    x = torch.randn(arguments.batch_size, 3, image_size, image_size).to(arguments.device)
    labels = torch.arange(arguments.batch_size).to(arguments.device) % n_classes
    if arguments.mode != "eager":
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    forward = torch.compile(model) if arguments.mode == "compile" else model
    precision = contextlib.nullcontext
    if arguments.precision == "bf16":
        precision = lambda: torch.autocast(arguments.device, dtype=torch.bfloat16)  # noqa: E731

    def step():
        start = time.perf_counter()
        optimizer.zero_grad()
        with precision():
            loss = F.cross_entropy(forward(x), labels)
        loss.backward()
        optimizer.step()
        if arguments.device == "cuda":
            loss.item()  # as in a training loop that looks at its loss
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", choices=MODELS, default="resnet8x4")
    parser.add_argument("--mode", choices=MODES, default="eager")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tf32", action="store_true", help="for convolutions, which PyTorch does unless told otherwise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--paced", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = arguments.tf32

    start_rss = peak_rss_bytes()
    step = stepper(arguments)
    for _ in range(arguments.warmup):
        step()
    if arguments.paced:
        print("ready", flush=True)
        seconds = []
        for _ in zip(range(arguments.steps), sys.stdin):
            seconds.append(step())
            print(seconds[-1], flush=True)
    else:
        seconds = [step() for _ in range(arguments.steps)]
    row = {
        "peer": "torch",
        "version": torch.__version__,
        "student": arguments.student,
        "mode": arguments.mode,
        "precision": arguments.precision,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "tf32": arguments.tf32,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "start_rss_bytes": start_rss,
        "peak_rss_bytes": peak_rss_bytes(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
