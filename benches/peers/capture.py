"""Teacher passes per second, in turns: this project's capture, Python's onnxruntime, PyTorch with a DataLoader.

    capture.py target/release/logitcask RECIPE [--rounds 5] [--seconds 8] [--torch-model resnet56] [--only CASE,CASE]

`capture` is `logitcask bench capture RECIPE`: a whole capture with decoding, views, encoding, checksums and files; `bare`
are the same program's sessions on ready tensors. `ort-SxT` is the loop that everyone writes, `session.run` on a ready
batch of 64, with S sessions of T threads; `ort-default` leaves the threads to onnxruntime. `torch-eager` and
`torch-channels-last` are a model of the same architecture fed by a DataLoader with the same augmentation, its logits
kept and written by torch.save. `peak` is what the machine can do at all, by peak.c: GFLOP/s of fused multiply-adds that
touch no memory. The recipe is of CIFAR-10, with random crop and flip.
Needs onnxruntime, onnx, numpy and a C compiler; for the torch cases torch and torchvision. Prints a table and one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCH = 64


def ort_loop(model, sessions, threads, seconds):
    import numpy as np
    import onnxruntime as ort

    def session():
        options = ort.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    batch = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), dtype=np.float32)
    made = [session() for _ in range(sessions)]
    name = made[0].get_inputs()[0].name
    done = [0] * sessions
    for one in made:
        one.run(None, {name: batch})
    start = time.perf_counter()

    def work(index):
        while time.perf_counter() - start < seconds:
            made[index].run(None, {name: batch})
            done[index] += BATCH

    workers = [threading.Thread(target=work, args=(index,)) for index in range(sessions)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - start)


def torch_loop(model, root, channels_last, seconds):
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms

    import loader_torch
    import models_torch

    torch.set_num_threads(os.cpu_count())
    net = models_torch.build(model, 10, 3, 32).eval()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(), loader_torch.NORMALISE]
    data = loader_torch.Cifar(root, transforms.Compose(steps))
    batches = iter(DataLoader(data, BATCH, num_workers=1))
    rows, done = [], 0
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for warm in range(2):
            images, _ = next(batches)
            net(images)
        start = time.perf_counter()
        for images, _ in batches:
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            rows.append(net(images))
            done += len(images)
            if time.perf_counter() - start > seconds:
                break
        torch.save(torch.cat(rows), f"{folder}/logits.pt")
        return done / (time.perf_counter() - start)


def peak(seconds):
    with tempfile.TemporaryDirectory() as folder:
        build = ["cc", "-O3", "-march=native", "-pthread", str(HERE / "peak.c"), "-o", f"{folder}/peak"]
        subprocess.run(build, check=True)
        return float(subprocess.run([f"{folder}/peak", str(seconds)], check=True, stdout=subprocess.PIPE, text=True).stdout)


def one(case, model, root, torch_model, seconds):
    if case == "ort-default":
        return ort_loop(model, 1, 0, seconds)
    if case.startswith("ort-"):
        sessions, threads = case[4:].split("x")
        return ort_loop(model, int(sessions), int(threads), seconds)
    if case == "peak":
        return peak(min(seconds, 3))
    return torch_loop(torch_model, root, case == "torch-channels-last", seconds)


def gflop_per_image(model):
    """Multiplications and additions of convolutions and dense layers, from the shapes that ONNX infers."""
    import onnx

    made = onnx.load(model)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*made.graph.value_info, *made.graph.output]}
    weights = {w.name: list(w.dims) for w in made.graph.initializer}
    flop = 0
    for node in made.graph.node:
        if node.op_type == "Conv":
            _, per_group, *kernel = weights[node.input[1]]
            out = shapes[node.output[0]]
            flop += 2 * out[1] * out[2] * out[3] * per_group * kernel[0] * kernel[1]
        elif node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
            rows, columns = weights[node.input[1]]
            flop += 2 * rows * columns
    return flop / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("recipe")
    parser.add_argument("--set", dest="sets", action="append", default=[], help="changes the recipe, as for the binary")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement of the others")
    parser.add_argument("--own-seconds", type=float, help="for capture and bare, where a slow teacher wants more")
    parser.add_argument("--torch-model", help="a name that models_torch.py knows")
    parser.add_argument("--only", help="cases besides capture and bare, separated by commas")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    import tomllib

    recipe = tomllib.loads(Path(options.recipe).read_text())
    given = dict(assignment.split("=", 1) for assignment in options.sets)
    model = str(Path(given.get("teacher.0.onnx", recipe["teacher"][0]["onnx"])).resolve())
    root = str(Path(given.get("data.root", recipe["data"]["root"])).resolve())
    if options.case:
        print(one(options.case, model, root, options.torch_model, options.seconds))
        return
    cores = os.cpu_count()
    sweep = {(s, t) for s in (1, 2, cores) for t in (1, 2, cores) if s * t <= cores}
    cases = ["peak", "ort-default"] + [f"ort-{s}x{t}" for s, t in sorted(sweep)]
    cases += ["torch-eager", "torch-channels-last"] if options.torch_model else []
    if options.only:
        cases = options.only.split(",")
    changes = [part for assignment in options.sets for part in ("--set", assignment)]
    ours_command = [options.binary, "bench", "capture", options.recipe, "--json", "--rounds", "1", "--seconds", str(options.own_seconds or options.seconds), *changes]
    rates = {}
    for index in range(options.rounds):
        ours = json.loads(subprocess.run(ours_command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rates.setdefault("capture", []).extend(ours["capture_images_per_s"])
        rates.setdefault("bare", []).extend(ours["bare_images_per_s"])
        for case in cases:
            command = [sys.executable, __file__, *sys.argv[1:], "--case", case]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"})
            rates.setdefault(case, []).append(float(said.stdout.split()[-1]))
        print(f"round {index + 1} of {options.rounds}", file=sys.stderr)
    work = gflop_per_image(model)
    print(f"{Path(model).name}: {work:.3f} GFLOP per image, {ours['batch_size']} images at once")
    print(f"{'':20} {'img/s, median':>14} {'best':>8} {'GFLOP/s':>9} {'capture / it, median over rounds':>34}")
    for case, values in rates.items():
        middle = statistics.median(values)
        if case == "peak":
            share = statistics.median(ours * work / value for ours, value in zip(rates["capture"], values))
            print(f"{case:20} {'':14} {'':8} {middle:9.1f} {share:34.3f}")
            continue
        ratio = statistics.median(ours / value for ours, value in zip(rates["capture"], values))
        print(f"{case:20} {middle:14.1f} {max(values):8.1f} {middle * work:9.1f} {ratio:34.3f}")
    print(json.dumps({"model": Path(model).name, "rates": rates}))


if __name__ == "__main__":
    main()
