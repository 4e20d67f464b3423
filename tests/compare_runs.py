"""Holds two runs of one recipe against each other, epoch by epoch: `compare_runs.py RUN OTHER --loss 1e-2 --top1 0.02`.

Losses of an epoch may differ by the given share, accuracies on the evaluation split by the given difference. Prints a
table; exits with 1 if a difference is larger.
"""

import argparse
import json
import pathlib
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, type=pathlib.Path)
    parser.add_argument("--loss", type=float, required=True)
    parser.add_argument("--top1", type=float, required=True)
    arguments = parser.parse_args()
    left, right = (epochs(run) for run in arguments.runs)
    devices = [json.loads((run / "run.json").read_text())["recorded"]["device"] for run in arguments.runs]
    print(f"epoch   loss on {devices[0]:24} on {devices[1]:24} top-1")
    ok = len(left) == len(right) > 0
    for a, b in zip(left, right):
        top1 = [epoch["eval"]["top1"] for epoch in (a, b)]
        print(f"{a['epoch']:5}   {a['loss']:<32.6f} {b['loss']:<27.6f} {top1[0]:.4f} {top1[1]:.4f}")
        ok &= abs(a["loss"] - b["loss"]) <= arguments.loss * abs(a["loss"])
        ok &= abs(top1[0] - top1[1]) <= arguments.top1
    verdict = "they agree to" if ok else "they differ by more than"
    print(f"{verdict} {arguments.loss:.0e} of the loss and {arguments.top1} of top-1")
    return 0 if ok else 1


def epochs(run: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
