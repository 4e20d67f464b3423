#!/usr/bin/env bash
# What `make gpu-check` does where an NVIDIA GPU is: captures the digits (and CIFAR-10, where its recipe's files are there)
# by CUDA and by the CPU, and holds the two against each other. Fails if top-1 agrees on less than 99.9 % of the rows.
set -euo pipefail
cd "$(dirname "$0")/.."
binary="${CARGO_TARGET_DIR:-target}/release/logitcask"
command -v nvidia-smi >/dev/null || { echo "no NVIDIA driver on this machine: nvidia-smi is missing"; exit 1; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

recipes=(pipelines/digits/resnet-resnet8/kd.toml)
if [ -f data/teachers/cifar10_resnet56_clean.onnx ] && [ -d data/datasets/cifar10 ]; then
    recipes+=(pipelines/cifar10/resnet56-resnet8/kd.toml)
fi
for recipe in "${recipes[@]}"; do
    echo "== $recipe"
    for provider in cpu cuda; do
        "$binary" teacher-logits "$recipe" --set teacher.0.encoding=f32 --provider "$provider" \
            --cache-dir "$work/$provider" --json | tee "$work/$provider.json"
    done
    for on_cpu in "$work"/cpu/*/; do
        "$binary" cache diff "$on_cpu" "$work/cuda/$(basename "$on_cpu")" --json |
            python3 -c '
import json, sys
distance = json.load(sys.stdin)["distance"]
agreement = 1 - distance["n_flipped"] / distance["n_rows"]
print(f"{distance['"'"'n_rows'"'"']} rows: top-1 agreement {agreement:.4%}, largest difference {distance['"'"'max_abs'"'"']:.2e}")
sys.exit(agreement < 0.999)'
    done
done
echo "CUDA agrees with the CPU"
