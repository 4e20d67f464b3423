#!/usr/bin/env bash
# Runs the tests of the CUDA build, and a training of its command, on a stand-in for a GPU: builds logitcask for CUDA with a
# compiler that compiles no kernels (nvcc), links it to fake_gpu.c in place of NVIDIA's libraries, and compares what comes out
# with the CPU. Fetches nothing of NVIDIA's. Part of `make test-full`.
set -euo pipefail
cd "$(dirname "$0")/../.."
work="$(realpath -m "${CARGO_TARGET_DIR:-target}/fake_gpu")"
cuda="$work/cuda"
mkdir -p "$cuda/bin" "$cuda/include" "$cuda/lib64"
cp tests/fake_gpu/nvcc "$cuda/bin/"
touch "$cuda/include/cuda.h"

# Whatever cudarc declares of NVIDIA's libraries and fake_gpu.c lacks is there too, and says so when it is called.
host=$(rustc -vV | sed -n 's/^host: //p')
cudarc=$(cargo metadata --format-version 1 --features logitcask-layers/cuda --filter-platform "$host" | python3 -c '
import json, pathlib, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "cudarc":
        print(pathlib.Path(package["manifest_path"]).parent)')
${CC:-cc} -O3 -w -fPIC -c -o "$work/fake_gpu.o" tests/fake_gpu/fake_gpu.c
grep -ohE 'fn (cu|nvrtc)[A-Za-z0-9_]+' "$cudarc"/src/*/sys/mod.rs | cut -c4- | sort -u >"$work/declared"
nm --defined-only "$work/fake_gpu.o" | awk '{ print $3 }' | sort -u >"$work/there"
{
    echo '#include <stdio.h>'
    comm -23 "$work/declared" "$work/there" |
        sed -E 's/.*/int &(void) { fprintf(stderr, "fake GPU: no function `&`\\n"); return 801; }/'
} >"$work/lacking.c"
${CC:-cc} -w -shared -fPIC -Wl,-soname,libfake_gpu.so -o "$cuda/lib64/libfake_gpu.so" \
    "$work/fake_gpu.o" "$work/lacking.c" -lm
for library in cuda cudart cublas cublasLt curand cudnn nvrtc; do
    ln -sf libfake_gpu.so "$cuda/lib64/lib$library.so"
done

export PATH="$cuda/bin:$PATH" NVCC="$cuda/bin/nvcc" CUDA_HOME="$cuda" CUDA_PATH="$cuda" CUDA_COMPUTE_CAP=80
export LIBRARY_PATH="$cuda/lib64" LD_LIBRARY_PATH="$cuda/lib64" CARGO_TARGET_DIR="$work/target"
cargo test --release -p logitcask-layers -p logitcask-student --test tensors \
    --features logitcask-layers/cuda,logitcask-student/cuda -- --nocapture >"$work/said" || { cat "$work/said"; exit 1; }
if grep 'skipped on CUDA' "$work/said"; then
    exit 1
fi
grep '^test result' "$work/said"

cargo build --release -p logitcask-cli --features cuda
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
recipe=pipelines/digits/resnet-resnet8/ce.toml
logitcask="$CARGO_TARGET_DIR/release/logitcask"
"$logitcask" teacher-logits $recipe --cache-dir "$runs/cache"
for device in cpu cuda; do
    "$logitcask" student $recipe --device $device --cache-dir "$runs/cache" \
        --out "$runs/$device" --set train.epochs=2 --set data.limit=480 --set train.ema=0.9 >/dev/null
done
python3 tests/compare_runs.py "$runs/cpu" "$runs/cuda" --loss 1e-3 --top1 0.02
