#!/usr/bin/env bash
# What a build for CUDA needs where no CUDA toolkit is installed: nvcc, its headers, and the libraries to link, out of
# PyPI's wheels (pinned in toolkit.pins, checked by pip), in .runtime/toolkit. Needs a C compiler and a python3 with pip;
# no root. Prints the environment to build in:
#     eval "$(pipelines/runtime/toolkit.sh)" && cargo build --release -p logitcask-cli --features cuda
# Where nvcc is on the PATH already, that one is used, nothing is fetched, and nothing is printed.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${LOGITCASK_TOOLKIT:-}" ] && command -v nvcc >/dev/null; then
    echo "CUDA toolkit: $(command -v nvcc)" >&2
    exit 0
fi
pins=pipelines/runtime/toolkit.pins
folder="$PWD/.runtime/toolkit"
if ! cmp -s "$pins" "$folder/requirements.txt"; then
    mkdir -p .runtime
    work=$(mktemp -d .runtime/.toolkit-XXXXXX)
    trap 'rm -rf "$work"' EXIT
    echo "fetching the CUDA toolkit: $(grep -o '^[a-z0-9-]*==[0-9.]*' "$pins" | tr '\n' ' ')" >&2
    python3 -m pip install --disable-pip-version-check --quiet --no-deps --no-cache-dir --require-hashes \
        --only-binary=:all: --target "$work" --requirement "$pins" >&2
    lib="$work/nvidia/cu13/lib"
    ln -s lib "$work/nvidia/cu13/lib64"
    for library in "$work"/nvidia/cudnn/lib/*.so.*; do
        ln -s "../../cudnn/lib/$(basename "$library")" "$lib/"
    done
    # The linker looks for plain names.
    for name in cudart nvrtc curand cublas cublasLt cudnn; do
        versioned=$(cd "$lib" && ls -d "lib$name".so.* | head -1)
        ln -sf "$versioned" "$lib/lib$name.so"
    done
    # The driver's library comes with the driver. To link, one that has its names is enough; run without a GPU, it says so.
    mkdir "$work/stub"
    {
        echo '#define CUDA_ERROR_NO_DEVICE 100'
        echo 'int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }'
        echo 'int cuGetErrorString(int error, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }'
        grep -ohE '\bcu[A-Z][A-Za-z0-9_]+' "$work/nvidia/cu13/include/cuda.h" | sort -u |
            grep -vxE 'cuGetErrorName|cuGetErrorString' |
            sed 's/.*/int &(void) { return CUDA_ERROR_NO_DEVICE; }/'
    } >"$work/stub/libcuda.c"
    ${CC:-cc} -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$work/stub/libcuda.so.1" "$work/stub/libcuda.c"
    ln -s libcuda.so.1 "$work/stub/libcuda.so"
    cp "$pins" "$work/requirements.txt" # last: what tells that all is there
    rm -rf "$folder"
    mv "$work" "$folder"
    trap - EXIT
fi
cuda="$folder/nvidia/cu13"
echo "CUDA toolkit: $cuda" >&2
echo "export CUDA_HOME='$cuda' CUDA_PATH='$cuda' PATH='$cuda/bin:$PATH'"
echo "export LD_LIBRARY_PATH='$cuda/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}'"
echo "export LIBRARY_PATH='$cuda/lib:$folder/stub${LIBRARY_PATH:+:$LIBRARY_PATH}'"
# Code for the oldest of the GPUs that matter runs on all newer ones; where there is a GPU, the build asks it.
command -v nvidia-smi >/dev/null || echo "export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80}"
