"""A whole distillation, both ways, in turns: this project's cache, and online KD in PyTorch.

    online_kd.py target/release/logitcask RECIPE --cifar FOLDER --teacher TEACHER.onnx [--images 2500] [--students 10]

`cached` is `logitcask teacher-logits RECIPE` once, then `logitcask student RECIPE` per seed, whole commands by the clock:
start, checks of labels and pixels, training, an evaluation per epoch, checkpoints. `online` is the loop that everyone
writes: teacher and student see each batch, in one process whose imports, images and teacher are loaded before the clock
starts; it evaluates once per epoch too, and saves nothing. Both train on the first images of CIFAR-10 with the recipe's
student, losses (ce + kd), batch size, SGD, cosine schedule and epochs, in f32. The cache holds as many views as there are
epochs, so both ask the teacher equally often per student. PyTorch augments whole batches of tensors at once, which is
faster than a DataLoader, and runs teacher and student each in the faster of its two memory formats, tried beforehand.
The teacher's ONNX graph runs in PyTorch node by node, batch norms folded as they are in the file.

Needs torch, onnx and numpy. Prints a table and one JSON line.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from models_torch import build
from onnx import numpy_helper

RECORD = 3073


class OnnxTeacher(torch.nn.Module):
    """The operators of the CIFAR-10 ResNets: Conv, Relu, Add, Slice, Pad, ReduceMean, Gemm."""

    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        self.input, self.output, self.nodes = graph.input[0].name, graph.output[0].name, list(graph.node)
        self.attributes = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in self.nodes]
        self.constants, self.weights = {}, torch.nn.ParameterDict()
        for tensor in graph.initializer:
            value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            if value.is_floating_point():
                self.weights[tensor.name.replace(".", "_")] = torch.nn.Parameter(value, requires_grad=False)
            else:
                self.constants[tensor.name] = value

    def forward(self, x):
        values = {self.input: x}

        def get(name):
            if name in values:
                return values[name]
            key = name.replace(".", "_")
            return self.weights[key] if key in self.weights else self.constants.get(name)

        for node, attributes in zip(self.nodes, self.attributes):
            inputs = [get(name) for name in node.input if name]
            values[node.output[0]] = run_node(node.op_type, inputs, attributes)
        return values[self.output]


def run_node(operator, inputs, attributes):
    x = inputs[0]
    if operator == "Conv":
        padding = attributes["pads"][:2]
        return F.conv2d(x, *inputs[1:], stride=attributes["strides"], padding=padding, groups=attributes.get("group", 1))
    if operator == "Relu":
        return F.relu(x)
    if operator == "Add":
        return x + inputs[1]
    if operator == "Slice":
        starts, ends, axes, steps = (i.tolist() for i in inputs[1:5])
        for start, end, axis, step in zip(starts, ends, axes, steps):
            x = x[(slice(None),) * axis + (slice(start, min(end, x.shape[axis]), step),)]
        return x
    if operator == "Pad":
        pads = inputs[1].tolist()
        half = len(pads) // 2
        return F.pad(x, [n for axis in reversed(range(half)) for n in (pads[axis], pads[half + axis])])
    if operator == "ReduceMean":
        axes = attributes.get("axes") or inputs[1].tolist()
        return x.mean(dim=list(axes), keepdim=bool(attributes.get("keepdims", 1)))
    if operator == "Gemm":
        return F.linear(x, inputs[1], inputs[2])
    raise NotImplementedError(operator)


def images(path):
    records = np.frombuffer(Path(path).read_bytes(), np.uint8).reshape(-1, RECORD)
    return torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(records[:, 0].astype(np.int64))


def augmented(batch, generator):
    """Random crop with padding 4 and horizontal flip, each image its own."""
    n = len(batch)
    padded = F.pad(batch, [4] * 4)
    down, right = torch.randint(0, 9, (2, n), generator=generator)
    rows = (down[:, None] + torch.arange(32))[:, None, :, None]
    columns = (right[:, None] + torch.arange(32))[:, None, None, :]
    cropped = padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    flips = torch.rand(n, generator=generator) < 0.5
    cropped[flips] = cropped[flips].flip(-1)
    return cropped


class Online:
    def __init__(self, recipe, teacher, train, test):
        self.recipe, self.train, self.test = recipe, train, test
        (spec,) = recipe["teacher"]
        self.mean = torch.tensor(spec["mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(spec["std"]).view(1, 3, 1, 1)
        self.teacher = OnnxTeacher(teacher).eval()
        self.formats = {"teacher": torch.contiguous_format, "student": torch.contiguous_format}
        losses = {loss["name"]: loss for loss in recipe["loss"]}
        assert set(losses) == {"ce", "kd"}, "this script knows ce + kd"
        self.ce_weight = losses["ce"]["weight"]
        self.kd_weight, self.temperature = losses["kd"]["weight"], losses["kd"]["temperature"]

    def normalised(self, batch, part):
        return ((batch.float() / 255 - self.mean) / self.std).contiguous(memory_format=self.formats[part])

    def student(self, seed):
        torch.manual_seed(seed)
        return build(self.recipe["student"]["name"], 10).to(memory_format=self.formats["student"])

    def loss(self, student, batch, labels):
        with torch.no_grad():
            teacher_logits = self.teacher(self.normalised(batch, "teacher"))
        logits, T = student(self.normalised(batch, "student")), self.temperature
        kd = F.kl_div(
            F.log_softmax(logits / T, 1), F.log_softmax(teacher_logits / T, 1), reduction="batchmean", log_target=True
        )
        return self.ce_weight * F.cross_entropy(logits, labels) + self.kd_weight * T * T * kd

    def choose_formats(self):
        """The fastest pair of memory formats: the best of ten steps each, in turns, after two that do not count."""
        batch, labels = self.train[0][:64], self.train[1][:64]
        seconds = {pair: [] for pair in itertools.product([torch.contiguous_format, torch.channels_last], repeat=2)}
        for _ in range(12):
            for pair in seconds:
                self.use(pair)
                student = self.student(0).train()
                start = time.perf_counter()
                self.loss(student, batch, labels).backward()
                seconds[pair].append(time.perf_counter() - start)
        best = {pair: min(steps[2:]) for pair, steps in seconds.items()}
        self.use(min(best, key=best.get))
        names = {torch.contiguous_format: "contiguous", torch.channels_last: "channels_last"}
        return {f"{names[t]}+{names[s]}": round(value, 4) for (t, s), value in best.items()}

    def use(self, pair):
        self.formats = dict(zip(("teacher", "student"), pair))
        self.teacher = self.teacher.to(memory_format=self.formats["teacher"])

    def run(self, seed):
        spec = self.recipe["train"]
        student, generator = self.student(seed), torch.Generator().manual_seed(seed)
        settings = {key: spec["optimizer"][key] for key in ("lr", "momentum", "weight_decay")}
        optimizer = torch.optim.SGD(student.parameters(), **settings)
        n, batch_size = len(self.train[0]), spec["batch_size"]
        steps = spec["epochs"] * -(-n // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(spec["epochs"]):
            student.train()
            for chosen in torch.randperm(n, generator=generator).split(batch_size):
                optimizer.zero_grad()
                batch = augmented(self.train[0][chosen], generator)
                self.loss(student, batch, self.train[1][chosen]).backward()
                optimizer.step()
                schedule.step()
            top1 = self.top1(student)
        return top1

    @torch.no_grad()
    def top1(self, model, part="student"):
        model.eval()
        right = 0
        for batch, labels in zip(*(tensor.split(256) for tensor in self.test)):
            right += (model(self.normalised(batch, part)).argmax(1) == labels).sum().item()
        return right / len(self.test[1])


def timed(work):
    start = time.perf_counter()
    outcome = work()
    return time.perf_counter() - start, outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--cifar", type=Path, required=True, help="folder of data_batch_1.bin and a test batch")
    parser.add_argument("--test", default="test_batch.bin")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--students", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    recipe = tomllib.loads(arguments.recipe.read_text())
    recipe["train"]["epochs"] = arguments.epochs
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        raw = (arguments.cifar / "data_batch_1.bin").read_bytes()[: arguments.images * RECORD]
        (folder / "data_batch_1.bin").write_bytes(raw)
        (folder / "test_batch.bin").write_bytes((arguments.cifar / arguments.test).read_bytes())
        sets = [
            f'data.root="{folder}"',
            'data.train=["data_batch_1.bin"]',
            'data.eval=["test_batch.bin"]',
            f'teacher.0.onnx="{arguments.teacher.resolve()}"',
            f"views.count={arguments.epochs}",
            f"train.epochs={arguments.epochs}",
        ]

        def ours(command, *more):
            line = [arguments.binary, command, arguments.recipe, "--cache-dir", folder / "cache", "--json", *more]
            line += ["--threads", str(arguments.threads), *(word for each in sets for word in ("--set", each))]
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            return [json.loads(line) for line in done.stdout.splitlines()]

        def ours_student(seed):
            (record,) = ours("student", "--set", f"seed={seed}", "--out", folder / f"run-{seed}")
            return record["last"]["eval"]["top1"]

        online = Online(recipe, arguments.teacher, images(folder / "data_batch_1.bin"), images(folder / "test_batch.bin"))
        teacher_top1 = online.top1(online.teacher, "teacher")
        formats = online.choose_formats()
        teacher_s, _ = timed(lambda: ours("teacher-logits"))
        cached, onlines = [], []
        for seed in range(1, arguments.students + 1):
            cached.append(timed(lambda: ours_student(seed)))
            onlines.append(timed(lambda: online.run(seed)))

    n = arguments.students
    cached_s, online_s = [s for s, _ in cached], [s for s, _ in onlines]
    whole = teacher_s + sum(cached_s)
    saved = statistics.mean(online_s) - statistics.mean(cached_s)
    result = {
        "torch": torch.__version__,
        "images": arguments.images,
        "epochs": arguments.epochs,
        "students": n,
        "threads": arguments.threads,
        "teacher_top1": teacher_top1,
        "torch_step_s": formats,
        "teacher_s": round(teacher_s, 2),
        "cached_student_s": round(statistics.mean(cached_s), 2),
        "online_student_s": round(statistics.mean(online_s), 2),
        "cached_each_s": [round(s, 2) for s in cached_s],
        "online_each_s": [round(s, 2) for s in online_s],
        "cached_whole_s": round(whole, 1),
        "online_whole_s": round(sum(online_s), 1),
        "ratio": round(sum(online_s) / whole, 2),
        "break_even_students": round(teacher_s / saved, 2),
        "cached_top1": round(statistics.mean(top1 for _, top1 in cached), 4),
        "online_top1": round(statistics.mean(top1 for _, top1 in onlines), 4),
    }
    print(f"{'':24}{'teacher once':>14}{'per student':>14}{f'{n} students':>14}{'top-1':>10}")
    print(
        f"{'cached':24}{teacher_s:>12.1f} s{result['cached_student_s']:>12.1f} s{whole:>12.1f} s"
        f"{100 * result['cached_top1']:>8.2f} %"
    )
    print(
        f"{'online':24}{'-':>14}{result['online_student_s']:>12.1f} s{sum(online_s):>12.1f} s"
        f"{100 * result['online_top1']:>8.2f} %"
    )
    print(f"online takes {result['ratio']} times as long; even after {result['break_even_students']} students")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
