"""Teacher passes per second, in turns: this project's capture, Python's onnxruntime, PyTorch with a DataLoader.

    cargo build --release -p logitcask-teacher --example capture
    capture.py MODEL.onnx CIFAR10_ROOT target/release/examples/capture [ROUNDS] [TORCH_MODEL]

`capture` is a whole capture with decoding, random crop and flip, f16 encoding, checksums and files, `bare` the same
program's sessions on ready tensors. `ort-SxT` is the loop that everyone writes, `session.run` on ready tensors, with S
sessions of T threads; `ort-default` leaves the threads to onnxruntime. `torch-eager` and `torch-channels-last` are a
model of the same architecture fed by a DataLoader with the same augmentation, its logits kept and written by torch.save.
Needs onnxruntime, torch, torchvision and numpy. Prints a table and one JSON line.
"""

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
SECONDS = 6.0
BATCH = 64


def ort_loop(model, sessions, threads):
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
        while time.perf_counter() - start < SECONDS:
            made[index].run(None, {name: batch})
            done[index] += BATCH

    workers = [threading.Thread(target=work, args=(index,)) for index in range(sessions)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - start)


def torch_loop(model, root, channels_last):
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
        start = time.perf_counter()
        for images, _ in batches:
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            rows.append(net(images))
            done += len(images)
            if time.perf_counter() - start > SECONDS:
                break
        torch.save(torch.cat(rows), f"{folder}/logits.pt")
        return done / (time.perf_counter() - start)


def one(case, model, root, torch_model):
    if case == "ort-default":
        return ort_loop(model, 1, 0)
    if case.startswith("ort-"):
        sessions, threads = case[4:].split("x")
        return ort_loop(model, int(sessions), int(threads))
    return torch_loop(torch_model, root, case == "torch-channels-last")


def main():
    if sys.argv[1] == "--case":
        print(one(*sys.argv[2:6]))
        return
    model, root, binary = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    torch_model = sys.argv[5] if len(sys.argv) > 5 else None
    cores = os.cpu_count()
    sweep = {(s, t) for s in (1, 2, cores) for t in (1, 2, cores) if s * t <= cores}
    cases = ["ort-default"] + [f"ort-{s}x{t}" for s, t in sorted(sweep)]
    cases += ["torch-eager", "torch-channels-last"] if torch_model else []
    rates = {}
    for index in range(rounds):
        ours = json.loads(subprocess.run([binary, model, root, "1", "4"], check=True, capture_output=True, text=True).stdout)
        rates.setdefault("capture", []).extend(ours["capture_images_per_s"])
        rates.setdefault("bare", []).extend(ours["bare_images_per_s"])
        for case in cases:
            command = [sys.executable, __file__, "--case", case, model, root, torch_model or ""]
            said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout
            rates.setdefault(case, []).append(float(said.split()[-1]))
        print(f"round {index + 1} of {rounds}", file=sys.stderr)
    print(f"{'':22} {'median':>8} {'best':>8} {'capture / it, median over rounds':>36}")
    for case, values in rates.items():
        ratio = statistics.median(ours / value for ours, value in zip(rates["capture"], values))
        print(f"{case:22} {statistics.median(values):8.1f} {max(values):8.1f} {ratio:36.3f}")
    print(json.dumps({"model": Path(model).name, "rates": rates}))


if __name__ == "__main__":
    main()
