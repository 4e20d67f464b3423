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
from torch import nn


def conv3x3(inputs, outputs, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """The CIFAR ResNets of the distillation papers: three stages, widths[0] in the stem."""

    def __init__(self, depth, widths, classes):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, widths[0]), nn.BatchNorm2d(widths[0])
        blocks, inputs = [], widths[0]
        for stage, outputs in enumerate(widths[1:]):
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3x3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3x3(outputs, outputs)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.bn1(x), inplace=True)
        skip = x if self.shortcut is None else self.shortcut(y)
        y = self.conv2(F.relu(self.bn2(self.conv1(y)), inplace=True))
        return y + skip


class WideResNet(nn.Module):
    def __init__(self, depth, factor, classes):
        super().__init__()
        self.conv1 = conv3x3(3, 16)
        blocks, inputs = [], 16
        for stage in range(3):
            outputs = 16 * factor * 2**stage
            for block in range((depth - 4) // 6):
                blocks.append(WideBlock(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
                inputs = outputs
        self.blocks, self.bn = nn.Sequential(*blocks), nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn(self.blocks(self.conv1(x))), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Vgg8(nn.Module):
    def __init__(self, classes):
        super().__init__()
        layers, inputs = [], 3
        for block, outputs in enumerate([64, 128, 256, 512, 512]):
            layers += [conv3x3(inputs, outputs, bias=True), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if block < 3 else []
            inputs = outputs
        self.layers, self.classifier = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


STUDENTS = {
    "resnet8": lambda classes: ResNet(8, (16, 16, 32, 64), classes),
    "resnet20": lambda classes: ResNet(20, (16, 16, 32, 64), classes),
    "resnet8x4": lambda classes: ResNet(8, (32, 64, 128, 256), classes),
    "wrn_16_2": lambda classes: WideResNet(16, 2, classes),
    "vgg8": Vgg8,
}
MODES = ("eager", "channels_last", "compile")


def measure(arguments, mode):
    torch.manual_seed(0)
    model = STUDENTS[arguments.student](arguments.classes).train()
    x = torch.randn(arguments.batch_size, 3, 32, 32)
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
    parser.add_argument("--student", choices=STUDENTS, default="resnet8x4")
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
