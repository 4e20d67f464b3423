"""Repeat in PyTorch the steps that `logitcask student --dump-batches DIR` wrote, and compare the loss of each.

    logitcask student pipelines/cifar10/resnet56-resnet8/kd.toml --fresh --dump-batches dump
    python trajectory.py dump --student resnet8 [--control]

Both start from the same weights and see the same pixels, labels, teacher rows and learning rates; everything else (layers,
losses, gradients, SGD) is PyTorch's own. Fails if a loss is off by more than 1e-3 of itself. Losses: ce, kd.
With `--control` PyTorch also makes the steps in other ways, and the table has how far each is from f64: steps amplify
rounding, so that at a large learning rate PyTorch leaves 1e-3 of itself too.
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


def repeat(folder, student, terms=None, momentum=0.9, weight_decay=5e-4, dtype=torch.float32, layout=torch.channels_last):
    """Trains on the dumped batches; returns the model and (our loss, PyTorch's loss) of each step.

    `terms`, a list of (name, weight), trains on another loss than the dump's: the batches do not depend on it.
    """
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    state = load_file(folder / "initial.safetensors")
    n_classes = next(tensor.shape[0] for tensor in state.values() if tensor.ndim == 2)  # the one matrix is the head
    channels = load_file(folder / "batch-00001.safetensors")["pixels"].shape[3]
    model = build(student, n_classes, in_channels=channels).train()
    model.load_state_dict(state, strict=True)
    model = model.to(dtype, memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay)
    losses = []
    for index, line in enumerate(lines, start=1):
        batch = load_file(folder / f"batch-{index:05}.safetensors")
        batch = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
        logits = model(batch["pixels"].permute(0, 3, 1, 2).contiguous(memory_format=layout))
        weighted = terms or [(entry["name"], entry["weight"]) for entry in line["terms"]]
        loss = sum(weight * term(name, logits, batch) for name, weight in weighted)
        optimizer.param_groups[0]["lr"] = line["lr"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((line["loss"], loss.item()))
    return model, losses


def control(folder, student):
    """Each step's loss in f64, and as PyTorch computes it in f32 in several ways."""
    ways = {
        "channels_last": {},
        "eager": {"layout": torch.contiguous_format},
        "eager, 1 thread": {"layout": torch.contiguous_format},
    }
    n_threads = torch.get_num_threads()
    exact = [loss for _, loss in repeat(folder, student, dtype=torch.float64)[1]]
    found = {}
    for name, settings in ways.items():
        torch.set_num_threads(1 if name.endswith("1 thread") else n_threads)
        found[name] = [loss for _, loss in repeat(folder, student, **settings)[1]]
    torch.set_num_threads(n_threads)
    return exact, found


def off(losses, others):
    return [abs(loss - other) / abs(other) for loss, other in zip(losses, others)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump", type=Path)
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--control", action="store_true")
    arguments = parser.parse_args()
    ours, theirs = zip(*repeat(arguments.dump, arguments.student)[1])
    differences = off(ours, theirs)
    print("step       ours    PyTorch  relative difference")
    for step, row in enumerate(zip(ours, theirs, differences), start=1):
        print("{:4} {:10.6f} {:10.6f}  {:.1e}".format(step, *row))
    if arguments.control:
        exact, found = control(arguments.dump, arguments.student)
        print("largest relative difference to PyTorch in f64, and the first step beyond 1e-3")
        for name, losses in {"ours": ours, **found}.items():
            row = off(losses, exact)
            first = next((step for step, difference in enumerate(row, start=1) if difference > 1e-3), "none")
            print(f"{name:16} {max(row):.1e}  {first}")
    worst = max(differences)
    assert worst <= 1e-3, f"off by {worst:.1e} at worst"
    print(f"{len(ours)} steps, off by {worst:.1e} at worst")


if __name__ == "__main__":
    main()
