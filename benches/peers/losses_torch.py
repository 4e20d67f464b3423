"""Losses in eager PyTorch, taking turns with ours on one machine.

    cargo build --release -p logitcask-losses --example time_losses
    python benches/peers/losses_torch.py target/release/examples/time_losses [rounds] [threads]

Prints, per loss and size, the processor time of forward + backward of both in microseconds and their ratio: the fastest call
of each round, and the median over rounds. Processor time, summed over threads, because on a shared machine a wall clock
measures the neighbours; with one thread (the default) and an idle machine the two are the same. The same
mathematics on random logits in f32, written the way one writes it in PyTorch; both sides use the same number of threads.
Losses that PyTorch is not asked for are timed on our side alone.
"""

import json
import os
import statistics
import subprocess
import sys
import time

ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
THREADS = int(sys.argv[3]) if len(sys.argv) > 3 else 1
SECONDS = 0.25
SIZES = [(64, 100), (256, 1000), (512, 1000)]
OURS_ONLY = ["ce", "nkd", "ldrld", "cskd", "mlkd", "dist", "rkd", "vid", "jsd", "mse", "reverse_kl"]


def torch_losses():
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(THREADS)

    def kd(s, t, y, T=4.0):
        return T * T * F.kl_div(F.log_softmax(s / T, 1), F.softmax(t / T, 1), reduction="batchmean")

    def against_rest(z, y):
        log_p = F.log_softmax(z, 1)
        log_y = log_p.gather(1, y[:, None])
        rest = torch.logsumexp(log_p.scatter(1, y[:, None], float("-inf")), 1, keepdim=True)
        return torch.cat([log_y, rest], 1)

    def dkd(s, t, y, T=4.0):
        tckd = F.kl_div(against_rest(s / T, y), against_rest(t / T, y).exp(), reduction="batchmean")
        target = F.one_hot(y, s.shape[1])
        log_p = F.log_softmax(s / T - 1000.0 * target, 1)
        q = F.softmax(t / T - 1000.0 * target, 1)
        return T * T * (tckd + 8.0 * F.kl_div(log_p, q, reduction="batchmean"))

    def rld(s, t, y, T=4.0):
        scd = F.kl_div(against_rest(s, y), against_rest(t, t.argmax(1)).exp(), reduction="batchmean")
        removed = t >= t.gather(1, y[:, None])
        log_p = F.log_softmax((s / T).masked_fill(removed, -1e9), 1)
        q = F.softmax((t / T).masked_fill(removed, -1e9), 1)
        return scd + 8.0 * T * T * F.kl_div(log_p, q, reduction="batchmean")

    def clkd(s, t, y):
        instance = F.mse_loss(F.normalize(s, dim=1), F.normalize(t, dim=1))
        of_class = F.mse_loss(F.normalize(s, dim=0), F.normalize(t, dim=0))
        sc, tc = s - s.mean(0), t - t.mean(0)
        c = s.shape[1]
        correlation = ((sc @ sc.T - tc @ tc.T) / (c - 1)).square().sum() / c**2
        return 0.5 * (instance + 2.0 * of_class) + 0.4 * correlation

    def mcld(s, t, y, tau=0.3):
        m = F.normalize(s, dim=1) @ F.normalize(t, dim=1).T / tau
        same = y[:, None] == y[None, :]
        own = m.diagonal()
        left_out = same & ~torch.eye(len(y), dtype=torch.bool)
        instance = (torch.logsumexp(m.masked_fill(left_out, float("-inf")), 1) - own).mean()
        sample = (torch.logsumexp(m, 0) - own).mean()
        category = (torch.logsumexp(m, 1) - torch.logsumexp(m.masked_fill(~same, float("-inf")), 1)).mean()
        return instance + sample + category

    def timed(loss, batch, classes):
        torch.manual_seed(1)
        s = (3 * torch.randn(batch, classes)).requires_grad_()
        t, y = 3 * torch.randn(batch, classes), torch.randint(classes, (batch,))
        start, times = time.perf_counter(), []
        while time.perf_counter() - start < SECONDS or len(times) < 4:
            one = time.process_time_ns()
            s.grad = None
            loss(s, t, y).backward()
            times.append(1e-3 * (time.process_time_ns() - one))
        return min(times)

    return {"kd": kd, "dkd": dkd, "mcld": mcld, "rld": rld, "clkd": clkd}, timed, torch.__version__


def main():
    environment = os.environ | {"RAYON_NUM_THREADS": str(THREADS)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.argv[1]], text=True, env=environment, **pipes)

    def ours(entry, batch, classes):
        request = {"entry": entry, "batch": batch, "classes": classes, "seconds": SECONDS}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    theirs, timed, version = torch_losses()
    cases = [({"name": name}, size) for name in [*theirs, *OURS_ONLY] for size in SIZES]
    cases += [({"name": "mcld", "bank": bank}, SIZES[0]) for bank in (256, 1024, 4096)]
    results = {}
    for _ in range(ROUNDS):
        for entry, size in cases:
            name = entry["name"] + (f" bank {entry['bank']}" if "bank" in entry else "")
            a, b = results.setdefault((name, size), ([], []))
            a.append(ours(entry, *size))
            if name in theirs:
                b.append(timed(theirs[name], *size))
    print(f"processor time, fastest calls, medians of {ROUNDS} rounds, threads: {THREADS}, PyTorch {version}\n")
    print("| loss | batch x classes | ours, us | PyTorch eager, us | ours / PyTorch |")
    print("|---|---|---|---|---|")
    for (name, (batch, classes)), (a, b) in results.items():
        mine = statistics.median(a)
        if b:
            other = statistics.median(b)
            # The ratio of each round first: what slows the machine slows both.
            ratio = statistics.median(x / y for x, y in zip(a, b))
            print(f"| {name} | {batch} x {classes} | {mine:.0f} | {other:.0f} | {ratio:.2f} |")
        else:
            print(f"| {name} | {batch} x {classes} | {mine:.0f} | | |")


if __name__ == "__main__":
    main()
