#!/usr/bin/env bash
# What `make cuda-build` does on any machine: builds logitcask for CUDA (a toolkit out of PyPI's wheels where none is
# installed: 1.1 GB, then 25 minutes on two cores), and looks at what came out: the libraries that it is linked to, and
# what it says where there is no GPU. Whether it computes rightly is for `make gpu-check`.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(pipelines/runtime/toolkit.sh)
eval "$environment"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/cuda"
cargo build --release -p logitcask-cli --features cuda
# Every test and example of what has code for CUDA is compiled and linked too.
cargo test --release -p logitcask-layers -p logitcask-student --features logitcask-layers/cuda,logitcask-student/cuda --no-run
binary="$CARGO_TARGET_DIR/release/logitcask"

needed=$(readelf --dynamic "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')
for library in libcuda.so.1 libcudart.so libcublas.so libcurand.so libcudnn.so; do
    grep -q "^$library" <<<"$needed" || { echo "the binary is not linked to $library"; exit 1; }
done
echo "linked to: $(grep -E 'cud|cublas|curand' <<<"$needed" | tr '\n' ' ')"
if command -v nvidia-smi >/dev/null; then
    echo "this machine has an NVIDIA driver: make gpu-check"
    exit 0
fi

# Without a driver the dynamic loader refuses to start the binary; with one that sees no GPU, logitcask refuses.
stub="$PWD/.runtime/toolkit/stub"
if [ ! -d "$stub" ]; then
    echo "no stub of the driver to run with"
    exit 0
fi
said=$(LD_LIBRARY_PATH="$stub" "$binary" student pipelines/digits/resnet-resnet8/ce.toml --device cuda 2>&1) && status=0 || status=$?
echo "$said"
[ "$status" = 1 ] || { echo "expected exit status 1, found $status"; exit 1; }
for words in "cuda device 0 cannot be used" "the driver sees no NVIDIA GPU"; do
    grep -q "$words" <<<"$said" || { echo "expected: $words"; exit 1; }
done
echo "compiles, links, and says what is missing"
