"""Golden files for ce, nkd, jsd, mse and reverse_kl, in float64, from the papers' equations.

    python tests/golden/make_extra.py

Inputs are those of tests/golden/kd. Values are written as the equations are; gradients are derived by hand, and checked
against central differences of the values on every file of at most 150 logits (worst relative difference printed; below
1e-8 or the script stops). numpy is all it needs.
"""

import json
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def without(z, y):
    """(B, C - 1): every row without its label."""
    keep = np.arange(z.shape[1]) != y[:, None]
    return z[keep].reshape(len(y), -1)


def put_back(g, y, n_classes):
    """(B, C): the reverse of `without`, with 0 at the label."""
    out = np.zeros((len(y), n_classes))
    out[np.arange(n_classes) != y[:, None]] = g.ravel()
    return out


def ce(s, t, y):
    """mean over B of -log p_y"""
    b, onehot = len(y), np.eye(s.shape[1])[y]
    return -(onehot * log_softmax(s)).sum() / b, (np.exp(log_softmax(s)) - onehot) / b


def smoothed_ce(s, t, y, smoothing):
    """arXiv:1512.00567, section 7: mean over B of -sum over c of target_c log p_c"""
    b, target = len(y), (1 - smoothing) * np.eye(s.shape[1])[y] + smoothing / s.shape[1]
    return -(target * log_softmax(s)).sum() / b, (np.exp(log_softmax(s)) - target) / b


def nkd_target(s, t, y):
    """arXiv:2303.13005, equation 6, first term: mean over B of -q_y log p_y"""
    b, onehot = len(y), np.eye(s.shape[1])[y]
    q_y = np.exp(log_softmax(t))[np.arange(b), y][:, None]
    return -(q_y * onehot * log_softmax(s)).sum() / b, q_y * (np.exp(log_softmax(s)) - onehot) / b


def nkd_non_target(s, t, y, temperature):
    """arXiv:2303.13005, equation 6, second term without gamma: T^2 mean over B of -sum over c != y of q'_c log p'_c"""
    b, T = len(y), temperature
    log_p, q = log_softmax(without(s, y) / T), np.exp(log_softmax(without(t, y) / T))
    gradient = T * (np.exp(log_p) - q) / b
    return -(T * T) * (q * log_p).sum() / b, put_back(gradient, y, s.shape[1])


def through_softmax(g, p, temperature):
    """From derivatives by p = softmax(z / T) to derivatives by z."""
    return p * (g - (g * p).sum(axis=1, keepdims=True)) / temperature


def jsd(s, t, y, temperature):
    """T^2 mean over B of (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2"""
    b, T = len(y), temperature
    log_p, log_q = log_softmax(s / T), log_softmax(t / T)
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    p, q = np.exp(log_p), np.exp(log_q)
    value = (p * (log_p - log_m) + q * (log_q - log_m)).sum() / 2
    return T * T * value / b, T * T * through_softmax((log_p - log_m) / 2, p, T) / b


def reverse_kl(s, t, y, temperature):
    """T^2 mean over B of KL(p || q)"""
    b, T = len(y), temperature
    log_p, log_q = log_softmax(s / T), log_softmax(t / T)
    p = np.exp(log_p)
    return T * T * (p * (log_p - log_q)).sum() / b, T * T * through_softmax(log_p - log_q, p, T) / b


def mse(s, t, y):
    """mean over B and C of (s - t)^2"""
    return ((s - t) ** 2).mean(), 2 * (s - t) / s.size


def variants():
    """(loss, variant, hyper-parameters, components, weights in the total)"""
    yield "ce", "default", {"ce_weight": 1.0, "formula": "ce_weight*ce"}, {"ce": ce}, {"ce": 1.0}
    hyper = {"ce_weight": 1.0, "label_smoothing": 0.1, "formula": "ce_weight*ce"}
    yield "ce", "smoothed", hyper, {"ce": lambda s, t, y: smoothed_ce(s, t, y, 0.1)}, {"ce": 1.0}
    for variant, ce_weight, gamma, T in [("default", 1.0, 3.5, 3.0), ("imagenet", 1.0, 1.5, 1.0)]:
        yield (
            "nkd",
            variant,
            {"temperature": T, "gamma": gamma, "ce_weight": ce_weight, "formula": "ce_weight*ce + target + gamma*non_target"},
            {"ce": ce, "target": nkd_target, "non_target": lambda s, t, y, T=T: nkd_non_target(s, t, y, T)},
            {"ce": ce_weight, "target": 1.0, "non_target": gamma},
        )
    for name, loss in [("jsd", jsd), ("reverse_kl", reverse_kl)]:
        for variant, ce_weight, kd_weight, T in [("default", 0.1, 0.9, 4.0), ("tau1", 1.0, 0.5, 1.0)]:
            yield (
                name,
                variant,
                {"temperature": T, "ce_weight": ce_weight, "kd_weight": kd_weight, "formula": f"ce_weight*ce + kd_weight*{name}"},
                {"ce": ce, name: lambda s, t, y, loss=loss, T=T: loss(s, t, y, T)},
                {"ce": ce_weight, name: kd_weight},
            )
    yield (
        "mse",
        "default",
        {"ce_weight": 1.0, "kd_weight": 0.5, "formula": "ce_weight*ce + kd_weight*mse"},
        {"ce": ce, "mse": mse},
        {"ce": 1.0, "mse": 0.5},
    )


def read(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    tensors, start = {}, 8 + length
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            kind = {"F64": "<f8", "I64": "<i8"}[entry["dtype"]]
            tensors[name] = np.frombuffer(raw[start + first : start + last], kind).reshape(entry["shape"])
    return tensors


def write(path, tensors):
    header, data = {}, b""
    for name, tensor in sorted(tensors.items()):
        kind, code = ("I64", "<i8") if tensor.dtype.kind == "i" else ("F64", "<f8")
        raw = np.ascontiguousarray(tensor, dtype=code).tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def central_differences(f, s, h=1e-3):
    """Five-point stencil: its error is of the order of h^4."""
    out = np.zeros_like(s)
    for index in np.ndindex(*s.shape):
        at = []
        for step in (-2, -1, 1, 2):
            moved = s.copy()
            moved[index] += step * h
            at.append(f(moved))
        out[index] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    return out


def main():
    worst = 0.0
    for loss, variant, hyper, components, weights in variants():
        folder = HERE / loss
        folder.mkdir(exist_ok=True)
        for source in sorted((HERE / "kd").glob("*.safetensors")):
            if "__" in source.stem:
                continue
            inputs = read(source)
            s, t, y = inputs["student"], inputs["teacher"], inputs["labels"]
            results = {name: f(s, t, y) for name, f in components.items()}
            total = sum(weights[name] * value for name, (value, _) in results.items())
            gradient = sum(weights[name] * g for name, (_, g) in results.items())
            tensors = {"student": s, "teacher": t, "labels": y, "grad_student": gradient}
            if s.size <= 300:
                tensors |= {f"grad.{name}": g for name, (_, g) in results.items()}
            if s.size <= 150:
                numeric = central_differences(lambda s: sum(weights[n] * f(s, t, y)[0] for n, f in components.items()), s)
                error = np.abs(numeric - gradient).max() / max(np.abs(gradient).max(), 1e-3)
                assert error < 1e-8, (loss, variant, source.stem, error)
                worst = max(worst, error)
            stem = source.stem if variant == "default" else f"{source.stem}__{variant}"
            golden = {
                "loss": loss,
                "variant": variant,
                "case": {"name": source.stem, "B": s.shape[0], "C": s.shape[1]},
                "hyperparameters": hyper,
                "components": {name: float(value) for name, (value, _) in results.items()},
                "total": float(total),
                "computed_by": "tests/golden/make_extra.py",
                "dtype": "float64",
                "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
            }
            write(folder / f"{stem}.safetensors", tensors)
            (folder / f"{stem}.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"gradients agree with central differences to {worst:.1e}")


if __name__ == "__main__":
    main()
