"""Teacher passes per second on a GPU, in turns: capture_gpu.py BINARY [--device cuda] [--model resnet32x4].

A teacher of random weights is exported with torch.onnx, so that nothing has to be fetched, and asked about synthetic
32 x 32 images: by `logitcask bench capture`, and by the same model in PyTorch, eager and channels_last, fed by a DataLoader
with random crop and flip, its logits kept and written by torch.save. TF32 is off on both sides.
Needs torch, torchvision, onnx and onnxscript. `--device cpu` tries the script itself.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parent))
import models_torch  # noqa: E402

BATCH = 256
RECIPE = """
[data]
format = "synthetic"
root = ""
n_classes = 100
synthetic = {{ n_train = 100000, height = 32, width = 32 }}
[views]
count = 16
augment = [{{ name = "random_crop", size = 32, padding = 4 }}, {{ name = "horizontal_flip" }}]
[[teacher]]
onnx = "{model}"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


class Images(Dataset):
    def __init__(self):
        self.images = np.random.default_rng(0).integers(0, 256, (4096, 32, 32, 3), dtype=np.uint8)
        normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.transform = transforms.Compose(
            [transforms.ToPILImage(), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalise]
        )

    def __len__(self):
        return 10_000_000

    def __getitem__(self, index):
        return self.transform(self.images[index % len(self.images)])


def by_torch(net, device, layout, seconds, workers):
    net = net.to(device=device, memory_format=layout)
    batches = iter(DataLoader(Images(), BATCH, num_workers=workers, pin_memory=device == "cuda"))
    rows, done = [], 0
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            net(next(batches).to(device, memory_format=layout))
        start = time.perf_counter()
        for images in batches:
            rows.append(net(images.to(device, memory_format=layout, non_blocking=True)).cpu())
            done += len(images)
            if time.perf_counter() - start > seconds:
                break
        torch.save(torch.cat(rows), f"{folder}/logits.pt")
        return done / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="resnet32x4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = models_torch.build(options.model, 100, 3, 32).eval()
    with tempfile.TemporaryDirectory() as work:
        model, recipe = f"{work}/teacher.onnx", f"{work}/recipe.toml"
        shapes = ({0: torch.export.Dim("batch")},)
        example = torch.randn(4, 3, 32, 32)
        torch.onnx.export(net, (example,), model, input_names=["input"], output_names=["logits"], dynamic_shapes=shapes, opset_version=18, external_data=False, verbose=False)
        Path(recipe).write_text(RECIPE.format(model=model))
        command = [options.binary, "bench", "capture", recipe, "--json", "--rounds", "1", "--seconds", str(options.seconds)]
        command += ["--provider", options.device, "--cache-dir", f"{work}/cache"]
        rates = {"capture": [], "bare": [], "torch-eager": [], "torch-channels-last": []}
        workers = max(1, torch.get_num_threads() - 1)
        for _ in range(options.rounds):
            ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            rates["capture"] += ours["capture_images_per_s"]
            rates["bare"] += ours["bare_images_per_s"]
            for case, layout in [("torch-eager", torch.contiguous_format), ("torch-channels-last", torch.channels_last)]:
                rates[case].append(by_torch(net, options.device, layout, options.seconds, workers))
    device = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    print(f"{options.model} on {device}; ONNX Runtime {ours['onnxruntime']}, {ours['batch_size']} images at once; PyTorch {torch.__version__}, {BATCH} at once")
    print(f"{'':20} {'img/s, median':>14} {'capture / it, median over rounds':>34}")
    for case, values in rates.items():
        ratio = statistics.median(ours / value for ours, value in zip(rates["capture"], values))
        print(f"{case:20} {statistics.median(values):14.1f} {ratio:34.3f}")
    print(json.dumps({"model": options.model, "device": device, "rates": rates}))


if __name__ == "__main__":
    main()
