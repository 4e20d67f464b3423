"""Which student, how many images and how many epochs let distillation show its worth on the digits?

    pip install numpy onnx onnxruntime onnxscript pillow pyarrow torch && python choose_student.py

A small study in PyTorch that set the demo's recipes. It trains the zoo's students from cached teacher logits as
logitcask does: the teacher answers for all nine crops of every image, a student sees another crop in each epoch and
meets each of the nine once in nine epochs, with the logits of that very crop. SGD, momentum 0.9, weight decay 5e-4,
cosine to zero by step. Five seeds, twenty for the two candidates; differences are paired by seed (the same weights,
order and crops). About a quarter of an hour on one core.
"""

import math
import sys

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

from train_teacher import HERE, crop, preprocess, read_split

sys.path.insert(0, str(HERE.parents[1] / "benches" / "peers"))
from models_torch import build  # noqa: E402

N_VIEWS = 9


def cache_teacher(pixels):
    """Inputs (N, 9, 1, 8, 8) of every crop and the teacher's logits (N, 9, 10) for them."""
    inputs = torch.stack([preprocess(crop(pixels, top, left)) for top in range(3) for left in range(3)], dim=1)
    session = onnxruntime.InferenceSession(HERE / "teacher.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": inputs.flatten(0, 1).numpy()})
    return inputs, torch.from_numpy(logits).unflatten(0, (-1, N_VIEWS))


def ce(student_logits, teacher_logits, labels, progress):
    return F.cross_entropy(student_logits, labels)


def kd(student_logits, teacher_logits, labels, progress, temperature=4.0):
    """0.1 CE + 0.9 T^2 KL(teacher || student), T = 4: the usual CIFAR setting."""
    student, teacher = (F.log_softmax(z / temperature, 1) for z in (student_logits, teacher_logits))
    divergence = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
    return 0.1 * F.cross_entropy(student_logits, labels) + 0.9 * temperature**2 * divergence


def mcld(student_logits, teacher_logits, labels, progress, temperature=0.3):
    """Instance, sample and category contrasts of unit logits, weights 1, no CE; the category part enters over a third."""
    similarity = F.normalize(student_logits) @ F.normalize(teacher_logits).T / temperature
    same_class = labels[:, None] == labels[None, :]
    others = same_class & ~torch.eye(len(labels), dtype=torch.bool)
    own = similarity.diagonal()
    instance = (similarity.masked_fill(others, -math.inf).logsumexp(1) - own).mean()
    sample = (similarity.logsumexp(0) - own).mean()
    category = (similarity.logsumexp(1) - similarity.masked_fill(~same_class, -math.inf).logsumexp(1)).mean()
    return instance + sample + min(3 * progress, 1) * category


def train(name, loss, inputs, teacher_logits, labels, seed, epochs, batch_size, peak_lr):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build(name, n_classes=10, in_channels=1, image_size=8).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=peak_lr, momentum=0.9, weight_decay=5e-4)
    n_steps, step = epochs * math.ceil(len(labels) / batch_size), 0
    for epoch in range(epochs):
        if epoch % N_VIEWS == 0:
            view_order = torch.rand(len(labels), N_VIEWS, generator=generator).argsort(1)
        for batch in torch.randperm(len(labels), generator=generator).split(batch_size):
            optimizer.param_groups[0]["lr"] = peak_lr * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            view = view_order[batch, epoch % N_VIEWS]
            student_logits = model(inputs[batch, view])
            value = loss(student_logits, teacher_logits[batch, view], labels[batch], (epoch + 1) / epochs)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            step += 1
    return model.eval()


def main():
    torch.set_num_threads(1)
    pixels, labels = read_split("train")
    inputs, teacher_logits = cache_teacher(pixels)
    test_pixels, test_labels = read_split("test")

    def accuracy(*setting):
        name, limit, seed, loss, epochs, batch_size, peak_lr = setting
        data = (inputs[:limit], teacher_logits[:limit], labels[:limit])
        model = train(name, loss, *data, seed, epochs, batch_size, peak_lr)
        with torch.no_grad():
            return 100 * (model(preprocess(test_pixels)).argmax(1) == test_labels).double().mean().item()

    def report(name, limit, epochs, batch_size, peak_lr, seeds=5):
        scores = {}
        for loss in (ce, kd, mcld):
            runs = [accuracy(name, limit, seed, loss, epochs, batch_size, peak_lr) for seed in range(1, seeds + 1)]
            scores[loss] = np.array(runs)
        cells = [name, limit, epochs, batch_size, peak_lr, seeds]
        cells += [f"{s.mean():.2f} ± {s.std(ddof=1):.2f}" for s in scores.values()]
        cells += [f"{d.mean():+.2f} ± {d.std(ddof=1):.2f}" for d in (scores[kd] - scores[ce], scores[mcld] - scores[ce])]
        print("|", " | ".join(map(str, cells)), "|", flush=True)

    print("| student | images | epochs | batch | lr | seeds | CE | KD | MCLD | KD - CE | MCLD - CE |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for limit in (100, 300, 600, 1201):
        report("resnet8", limit, 54, 64, 0.05)
    for epochs in (9, 27, 108):
        report("resnet8", 300, epochs, 64, 0.05)
    report("resnet8", 300, 54, 32, 0.05)
    report("resnet8", 300, 54, 64, 0.1)
    report("resnet20", 300, 54, 64, 0.05)
    for batch_size in (32, 64):
        report("resnet8", 300, 54, batch_size, 0.05, seeds=20)


if __name__ == "__main__":
    main()
