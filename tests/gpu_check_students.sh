#!/usr/bin/env bash
# The second half of `make gpu-check`: CUDA students where an NVIDIA GPU is.
# 1. Builds for CUDA and runs the students' tests on the GPU: every layer and every student of the zoo, forward, gradients and
#    running statistics, and ten training steps of each optimiser, loss by loss to 1e-3, against the CPU's kernels.
# 2. Trains a student from one cache on the CPU and by CUDA: losses of an epoch to 1 %, accuracies to 3 points (a run is
#    chaotic: after hundreds of steps only statistics agree).
# 3. Times steps beside PyTorch (f32, TensorFloat-32, bf16 autocast; channels_last, compiled), where the python of PYTHON
#    has it with CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
command -v nvidia-smi >/dev/null || { echo "there is no NVIDIA driver on this machine: nvidia-smi is missing"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

environment=$(pipelines/runtime/toolkit.sh)
eval "$environment"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/cuda"
cargo build --release -p logitcask-cli --features cuda
cargo test --release -p logitcask-layers -p logitcask-student --test tensors \
    --features logitcask-layers/cuda,logitcask-student/cuda -- --nocapture | tee "$work/tests"
if grep -q 'skipped on CUDA' "$work/tests"; then
    echo "the tests found no GPU"
    exit 1
fi

binary="$CARGO_TARGET_DIR/release/logitcask"
recipe=pipelines/digits/resnet-resnet8/kd.toml
"$binary" teacher-logits "$recipe" --cache-dir "$work/cache"
for device in cpu cuda; do
    echo "== $recipe on $device"
    "$binary" student "$recipe" --cache-dir "$work/cache" --device $device --set train.epochs=3 --out "$work/$device"
done
"$python" tests/compare_runs.py "$work"/{cpu,cuda} --loss 1e-2 --top1 0.03

has_torch=$("$python" -c 'import torch; print(torch.cuda.is_available())' 2>/dev/null || true)
[ "$has_torch" = True ] || echo "PYTHON=$python has no PyTorch with CUDA: steps of ours alone"
for name in resnet8x4 resnet20 wrn_16_2 mobilenet_v2; do
    for batch in 64 256; do
        both=(--student $name --batch-size $batch --warmup 10 --steps 50 --device cuda)
        "$binary" bench step "${both[@]}" --json
        "$binary" bench step "${both[@]}" --tf32 --json
        [ "$has_torch" = True ] || continue
        for mode in channels_last compile; do
            "$python" benches/peers/step_torch.py "${both[@]}" --mode $mode
            "$python" benches/peers/step_torch.py "${both[@]}" --mode $mode --tf32
            "$python" benches/peers/step_torch.py "${both[@]}" --mode $mode --precision bf16
        done
    done
done >"$work/steps"
"$python" - "$work/steps" <<'TABLE'
import json, sys
print("| student | batch | who | precision | median ms | least ms |\n|---|---|---|---|---|---|")
for row in map(json.loads, open(sys.argv[1])):
    who = " ".join(filter(None, (row.get("peer", "logitcask"), row.get("mode"))))
    precision = row.get("precision", "f32") + (" tf32" if row.get("tf32") else "")
    print(f"| {row['student']} | {row['batch_size']} | {who} | {precision} "
          f"| {1e3 * row['median_s']:.2f} | {1e3 * row['min_s']:.2f} |")
TABLE
echo "students by CUDA agree with the CPU"
