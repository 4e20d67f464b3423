"""Whole short runs, ours and PyTorch's, paired by seed: does training here end where it ends in PyTorch?

    paired.py target/release/logitcask --cifar FOLDER --teacher TEACHER.onnx [--epochs 8] [--seeds 5]

CIFAR-10, the first 10,000 training images, ResNet-8, ce and kd by the recipes of pipelines/cifar10/resnet56-resnet8.
For each seed, `logitcask student` trains, and writes its first weights and all its batches; PyTorch starts from the same
weights and sees the same batches at the same learning rates. Rounding alone sets them apart, and grows. Both are
evaluated on `--eval` files together, ours by logitcask itself. Prints a table, and for each loss the mean of the paired
differences with its 95 % interval (Student's t). Batches take 120 MB per epoch in a temporary folder.
"""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from trajectory import repeat

LOSSES = {"ce": [("ce", 1.0)], "kd": [("ce", 0.1), ("kd", 0.9)]}
RECIPES = Path(__file__).parents[2] / "pipelines/cifar10/resnet56-resnet8"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
T_975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201]  # for 1 degree of freedom, 2, ...


def evaluation_images(cifar, files):
    records = np.concatenate([np.fromfile(cifar / name, np.uint8).reshape(-1, 3073) for name in files])
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), torch.from_numpy(records[:, 0].astype(int))


def accuracy(model, images, labels):
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(500)])
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logitcask")
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--eval", nargs="+", default=["data_batch_5.bin"])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--work", type=Path, help="where the cache is kept, a temporary folder where absent")
    arguments = parser.parse_args()
    if not 2 <= arguments.seeds <= len(T_975) + 1:
        parser.error(f"--seeds: 2 to {len(T_975) + 1} have an interval")
    images, labels = evaluation_images(arguments.cifar, arguments.eval)

    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        settings = {
            "data.root": json.dumps(str(arguments.cifar.resolve())),
            "data.train": '["data_batch_1.bin"]',
            "data.eval": json.dumps(arguments.eval),
            "teacher.0.onnx": json.dumps(str(arguments.teacher.resolve())),
            "train.epochs": str(arguments.epochs),
            "train.eval_every": str(arguments.epochs),
            "views.count": str(arguments.views),
        }
        common = ["--cache-dir", work / "cache"] + [word for item in settings.items() for word in ("--set", "=".join(item))]
        subprocess.run([arguments.logitcask, "teacher-logits", RECIPES / "kd.toml", *common], check=True)
        print(f"| loss | seed | logitcask | PyTorch {torch.__version__} | difference |\n|---|---:|---:|---:|---:|", flush=True)
        for loss in arguments.losses:
            terms = LOSSES[loss]
            differences = []
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                run, dump = Path(scratch) / f"{loss}-{seed}", Path(scratch) / "dump"
                command = [arguments.logitcask, "student", RECIPES / f"{loss}.toml", *common, "--set", f"seed={seed}"]
                command += ["--json", "--fresh", "--out", run, "--dump-batches", dump, "--dump-steps", "1000000"]
                record = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
                ours = 100 * record["last"]["eval"]["top1"]
                model, _ = repeat(dump, "resnet8", terms)
                theirs = accuracy(model, images, labels)
                differences.append(ours - theirs)
                print(f"| {loss} | {seed} | {ours:.2f} | {theirs:.2f} | {ours - theirs:+.2f} |", flush=True)
            half = T_975[len(differences) - 2] * statistics.stdev(differences) / math.sqrt(len(differences))
            mean = statistics.mean(differences)
            print(f"| {loss} | mean | | | {mean:+.2f} ± {half:.2f} |", flush=True)


if __name__ == "__main__":
    main()
