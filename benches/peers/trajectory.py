"""Repeat in PyTorch the steps that `logitcask student --dump-batches DIR` wrote, and compare the loss of each.

    logitcask student pipelines/cifar10/resnet56-resnet8/kd.toml --fresh --dump-batches dump
    python trajectory.py dump --student resnet8

Both start from the same weights and see the same pixels, labels, teacher rows and learning rates; everything else (layers,
losses, gradients, SGD) is PyTorch's own. Fails if a loss is off by more than 1e-3 of itself. Losses: ce, kd.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from models_torch import build
from safetensors.torch import load_file

TEMPERATURE = 4.0  # of kd, where the recipe says nothing else


def term(name, logits, batch):
    if name == "ce":
        return F.cross_entropy(logits, batch["labels"])
    assert name == "kd", f"the loss `{name}` is not repeated here"
    student = F.log_softmax(logits / TEMPERATURE, dim=1)
    teacher = F.log_softmax(batch["teacher_logits"] / TEMPERATURE, dim=1)
    return TEMPERATURE**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def repeat(folder, student, terms=None, momentum=0.9, weight_decay=5e-4):
    """Trains on the dumped batches; returns the model and (our loss, PyTorch's loss) of each step.

    `terms`, a list of (name, weight), trains on another loss than the dump's: the batches do not depend on it.
    """
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    state = load_file(folder / "initial.safetensors")
    n_classes = next(tensor.shape[0] for tensor in state.values() if tensor.ndim == 2)  # the one matrix is the head
    channels = load_file(folder / "batch-00001.safetensors")["pixels"].shape[3]
    model = build(student, n_classes, in_channels=channels).train()
    model.load_state_dict(state, strict=True)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay)
    losses = []
    for index, line in enumerate(lines, start=1):
        batch = load_file(folder / f"batch-{index:05}.safetensors")
        logits = model(batch["pixels"].permute(0, 3, 1, 2))  # which is channels_last in memory
        weighted = terms or [(entry["name"], entry["weight"]) for entry in line["terms"]]
        loss = sum(weight * term(name, logits, batch) for name, weight in weighted)
        optimizer.param_groups[0]["lr"] = line["lr"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((line["loss"], loss.item()))
    return model, losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump", type=Path)
    parser.add_argument("--student", default="resnet8")
    arguments = parser.parse_args()
    _, losses = repeat(arguments.dump, arguments.student)
    print("step       ours    PyTorch  relative difference")
    worst = 0.0
    for step, (ours, theirs) in enumerate(losses, start=1):
        difference = abs(ours - theirs) / abs(theirs)
        worst = max(worst, difference)
        print(f"{step:4} {ours:10.6f} {theirs:10.6f}  {difference:.1e}")
    assert worst <= 1e-3, f"off by {worst:.1e} at worst"
    print(f"{len(losses)} steps, off by {worst:.1e} at worst")


if __name__ == "__main__":
    main()
