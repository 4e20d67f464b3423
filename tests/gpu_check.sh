#!/usr/bin/env bash
# What `make gpu-check` does where an NVIDIA GPU is: says what runs, captures the digits (and CIFAR-10, where its recipe's
# files are) by CUDA, and by TensorRT where that is installed, holds each against the CPU, and measures images per second
# beside PyTorch on the same GPU where the python of PYTHON has it. Fails if top-1 agrees on less than 99.9 % of the rows or
# a logit is off by more than 0.02. What was measured is also written to data/runs/gpu-check.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
binary="${CARGO_TARGET_DIR:-target}/release/logitcask"
python=${PYTHON:-python3}
mkdir -p data/runs
exec > >(tee data/runs/gpu-check.txt)

"$binary" doctor
command -v nvidia-smi >/dev/null || { echo "there is no NVIDIA driver on this machine: nvidia-smi is missing; nothing was compared"; exit 1; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

providers=(cuda)
if "$binary" doctor | grep -q '^ok  provider tensorrt'; then
    providers+=(tensorrt)
else
    echo "TensorRT cannot run here (see above) and is left out"
fi
recipes=(pipelines/digits/resnet-resnet8/kd.toml)
if [ -f data/teachers/cifar10_resnet56_clean.onnx ] && [ -d data/datasets/cifar10 ]; then
    recipes+=(pipelines/cifar10/resnet56-resnet8/kd.toml)
fi
for recipe in "${recipes[@]}"; do
    for provider in cpu "${providers[@]}"; do
        echo "== $recipe, $provider"
        "$binary" teacher-logits "$recipe" --set teacher.0.encoding=f32 --provider "$provider" --cache-dir "$work/$provider" 2>&1
    done
    for provider in "${providers[@]}"; do
        for on_cpu in "$work"/cpu/*/; do
            "$binary" cache diff "$on_cpu" "$work/$provider/$(basename "$on_cpu")" --json | "$python" -c '
import json, sys
distance = json.load(sys.stdin)["distance"]
rows, flipped, off = distance["n_rows"], distance["n_flipped"], distance["max_abs"]
agreement = 1 - flipped / rows
print(f"'"$provider"' against cpu, {rows} rows: top-1 agreement {agreement:.4%}, largest difference {off:.2e}")
sys.exit(agreement < 0.999 or off > 0.02)'
        done
    done
    rm -rf "$work"/*
done
echo "the GPU agrees with the CPU"

if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "== images per second, beside PyTorch on the same GPU"
    "$python" benches/peers/capture_gpu.py "$binary" --device cuda
else
    echo "PYTHON=$python has no PyTorch with CUDA: images per second of ours alone"
    "$binary" bench capture "${recipes[-1]}" --provider cuda
fi
