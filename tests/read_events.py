"""A real TensorBoard reads what a run wrote: `python tests/read_events.py RUN` (needs tensorboard).

Every figure of every line of metrics.jsonl must be a scalar of its epoch, equal in f32, and there must be no others.
"""

import json
import pathlib
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FIGURES = ("top1", "top5", "nll", "ece", "agreement", "divergence", "teacher_top1")


def expected(epoch):
    scalars = {"train/loss": epoch["loss"], "train/top1": epoch["train_top1"], "train/lr": epoch["lr"]}
    scalars |= {f"loss/{term['name']}": term["value"] for term in epoch["terms"]}
    evaluation = epoch.get("eval") or {}
    return scalars | {f"eval/{name}": evaluation[name] for name in FIGURES if name in evaluation}


def main() -> int:
    run = pathlib.Path(sys.argv[1])
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    found = {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}
    assert set(found) == set(expected(epochs[0])), sorted(set(found) ^ set(expected(epochs[0])))
    for tag, events in found.items():
        assert [event.step for event in events] == [epoch["epoch"] for epoch in epochs], tag
        for event, epoch in zip(events, epochs):
            assert np.float32(event.value) == np.float32(expected(epoch)[tag]), (tag, event, epoch)
            assert event.wall_time > 0
    print(f"TensorBoard reads {len(found)} scalars of {len(epochs)} epochs, each as it was written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
