"""Images per second through PyTorch's DataLoader with torchvision: loader_torch.py CASE ROOT [WORKERS] [SECONDS].

Cases as in crates/dataset/benches/loader.rs: cifar, jpeg, decode. The transforms are those that everyone writes.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

torch.set_num_threads(1)
NORMALISE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class Cifar(Dataset):
    """The binary batches, as torchvision.datasets.CIFAR10 serves its pickled ones: an array, a PIL image per item."""

    def __init__(self, root, transform):
        records = [np.fromfile(path, np.uint8).reshape(-1, 3073) for path in sorted(Path(root).glob("data_batch_*.bin"))]
        records = np.concatenate(records)
        self.labels = records[:, 0].astype(int).tolist()
        self.images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def dataset(case, root):
    flip = transforms.RandomHorizontalFlip()
    if case == "cifar":
        return Cifar(root, transforms.Compose([transforms.RandomCrop(32, padding=4), flip, transforms.ToTensor(), NORMALISE])), 128
    if case == "jpeg":
        steps = [transforms.RandomResizedCrop(224), flip, transforms.ToTensor(), NORMALISE]
        return datasets.ImageFolder(f"{root}/train", transforms.Compose(steps)), 64
    if case == "decode":
        return datasets.ImageFolder(f"{root}/train", lambda image: 0), 64
    raise SystemExit(f"no case `{case}`")


def main():
    case, root = sys.argv[1:3]
    workers = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 3.0
    data, batch_size = dataset(case, root)

    def forever():
        while True:
            yield from DataLoader(data, batch_size, shuffle=True, num_workers=workers, drop_last=True,
                                  persistent_workers=False)

    batches = forever()
    for _ in range(4 * workers):
        next(batches)
    start, n = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        n += len(next(batches)[1])
    print(f"{n / (time.perf_counter() - start):.1f}")


if __name__ == "__main__":
    main()
