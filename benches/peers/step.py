"""Training steps of our students and of PyTorch's, in turns, as a Markdown table.

    python step.py ../../target/release/logitcask --students resnet8x4 vgg8 --batch-sizes 64 --threads 1 2

Each contender is a process that stays alive: `ours` is `logitcask bench step`, `ours:ce+kd` the same with another loss,
`eager`, `channels_last` and `compile` (channels_last too) are step_torch.py. They make one step each, in turns, for
`--rounds` rounds; the table has medians in milliseconds and the ratio of the first contender to the fastest of the
others. torch.compile needs g++ and keeps what it made on disk: run once with `--rounds 1` before a measurement.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SPEED_SETTINGS = {  # the same limit on both sides
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


class Contender:
    def __init__(self, name, arguments, student, batch_size, threads):
        kind, _, losses = name.partition(":")
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        if kind == "ours":
            command = [arguments.logitcask, "bench", "step", "--json"]
            for loss in (losses or "ce").split("+"):
                command += ["--loss", loss]
            if arguments.instructions:
                command += ["--instructions", arguments.instructions]
        else:
            command = [sys.executable, HERE / "step_torch.py", "--mode", kind]
            environment |= SPEED_SETTINGS.get(arguments.instructions, {})
        command += ["--student", student, "--batch-size", str(batch_size), "--threads", str(threads)]
        command += ["--steps", str(arguments.rounds), "--warmup", "2", "--paced"]
        if arguments.classes:
            command += ["--classes", str(arguments.classes)]
        self.name, self.seconds = name, []
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment)

    def wait(self):
        line = self.process.stdout.readline().strip()
        assert line == "ready", f"{self.name} did not start: {line!r}"

    def turn(self):
        self.process.stdin.write("\n")
        self.seconds.append(float(self.process.stdout.readline()))

    def finish(self):
        row = json.loads(self.process.stdout.readline())
        self.process.stdin.close()
        assert self.process.wait() == 0
        return row


def measure(arguments, student, batch_size, threads):
    contenders = []
    for name in arguments.contenders:  # one after the other: nobody warms up beside another
        contenders.append(Contender(name, arguments, student, batch_size, threads))
        contenders[-1].wait()
    for _ in range(arguments.rounds):
        for contender in contenders:
            contender.turn()
            time.sleep(0.01)  # idle threads of the last one spin for a while
    rows = {contender.name: contender.finish() for contender in contenders}
    for contender in contenders:
        rows[contender.name]["seconds"] = contender.seconds
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logitcask", help="the program")
    parser.add_argument("--contenders", nargs="+", default=["ours", "eager", "channels_last", "compile"])
    parser.add_argument("--students", nargs="+", default=["resnet8x4"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--classes", type=int)
    parser.add_argument("--instructions", choices=SPEED_SETTINGS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="add peak memory, and what of it a bare start takes")
    arguments = parser.parse_args()

    names = arguments.contenders
    print("| student | batch | threads | " + " | ".join(f"{name}, ms" for name in names) + " | ratio |")
    print("|---|---:|---:|" + "---:|" * (len(names) + 1))
    for student in arguments.students:
        for batch_size in arguments.batch_sizes:
            for threads in arguments.threads:
                rows = measure(arguments, student, batch_size, threads)
                medians = [statistics.median(rows[name]["seconds"]) for name in names]
                ratio = medians[0] / min(medians[1:], default=medians[0])
                cells = [f"{1e3 * median:.1f}" for median in medians]
                print(f"| {student} | {batch_size} | {threads} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)
                if arguments.memory:
                    for name in names:
                        peak, start = rows[name]["peak_rss_bytes"] / 2**20, rows[name]["start_rss_bytes"] / 2**20
                        print(f"  {name}: peak {peak:.0f} MiB, of which {start:.0f} MiB before the student was built")


if __name__ == "__main__":
    main()
