"""Train the digits teacher on train.parquet and write teacher.onnx.

    pip install numpy onnx onnxruntime onnxscript pillow pyarrow torch && python train_teacher.py

One thread and deterministic algorithms: the same versions on the same kind of CPU give the same file. Elsewhere the
last bits of a sum may differ, and after some hundred steps so do the weights; the accuracy then moves by a few
tenths of a point. The test split is read once, at the end, to state the accuracy.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

HERE = Path(__file__).resolve().parent
MEAN, STD = 0.3048, 0.3757  # of the train split, over pixels scaled to 0..1


def read_split(name):
    """Pixels (N, 8, 8) u8 and labels (N,) i64 of `train` or `test`."""
    table = pq.read_table(HERE / f"{name}.parquet")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()])
    return torch.from_numpy(pixels), torch.from_numpy(table["label"].to_numpy().copy())


def preprocess(pixels):
    """(N, 8, 8) u8 -> (N, 1, 8, 8) f32: (x / 255 - mean) / std."""
    return ((pixels.float() / 255 - MEAN) / STD).unsqueeze(1)


def crop(pixels, top, left):
    """Crop 8x8 out of the image padded by 1 with zeros; top and left in 0..=2. The recipes' random_crop does the same."""
    return F.pad(pixels, (1, 1, 1, 1))[:, top : top + 8, left : left + 8]


def random_crop(pixels, generator):
    """Draw one of the nine crops for each image. Digits are never flipped: a mirrored 2 is no 2."""
    views = torch.stack([crop(pixels, top, left) for top in range(3) for left in range(3)], dim=1)
    choice = torch.randint(9, (len(pixels),), generator=generator)
    return views[torch.arange(len(pixels)), choice]


class Block(nn.Module):
    """conv-bn-relu-conv-bn, added to the input (1x1 conv + bn where the shape changes), relu."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Teacher(nn.Module):
    """Two blocks of 32 channels at 8x8 and one of 64 at 4x4: 95,850 parameters."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(Block(32, 32, 1), Block(32, 32, 1), Block(32, 64, 2))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def train(pixels, labels, seed, epochs=120, batch_size=64, peak_lr=0.1):
    """SGD with Nesterov momentum; the rate rises over 5 epochs and then falls along a cosine."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Teacher()
    steps = epochs * (len(pixels) // batch_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=peak_lr, momentum=0.9, nesterov=True, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_lr, total_steps=steps, pct_start=5 / epochs, cycle_momentum=False
    )
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        for batch in order.split(batch_size):
            if len(batch) < batch_size:
                continue
            logits = model(preprocess(random_crop(pixels[batch], generator)))
            loss = F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model, path):
    """Write the model as ONNX: `input` (batch, 1, 8, 8) -> `logits` (batch, 10), nothing outside the file."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=18,
        external_data=False,
        verbose=False,
    )
    # The exporter notes the source line of every node, with absolute paths; they are no part of the model.
    proto = onnx.load(path)
    del proto.metadata_props[:]
    graph = proto.graph
    for part in [graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def onnx_accuracy(path, pixels, labels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": preprocess(pixels).numpy()})
    return (logits.argmax(1) == labels.numpy()).mean(), logits


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=Path, default=HERE / "teacher.onnx")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    model = train(*read_split("train"), arguments.seed)
    export(model, arguments.out)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out.name}: {n_parameters} parameters, {arguments.out.stat().st_size} bytes")
    for split in ["train", "test"]:
        pixels, labels = read_split(split)
        accuracy, logits = onnx_accuracy(arguments.out, pixels, labels)
        with torch.no_grad():
            torch_logits = model(preprocess(pixels)).numpy()
        apart = np.abs(logits - torch_logits).max()
        largest = np.abs(logits).max()
        print(f"{split}: accuracy {accuracy:.4f} of {len(labels)}, max |z| {largest:.2f}, PyTorch differs by {apart:.1e}")


if __name__ == "__main__":
    main()
