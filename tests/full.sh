#!/usr/bin/env bash
# What `make test-full` does beyond `make test`: long kill runs, other programs that read our files, a capture under a real
# Slurm, a capture of a million samples, a real browser, a sanitizer, fuzzing. Installs what it needs (Python packages into
# .runtime/python; slurm-wlm, munge, time and chromium by apt-get, as root; cargo-fuzz) and fails where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binary="${CARGO_TARGET_DIR:-target}/release/logitcask"

python=.runtime/python/bin/python
[ -x "$python" ] || python3 -m venv .runtime/python
"$python" -m pip install --quiet numpy pandas polars duckdb "pyarrow>=20" datasets tensorboard onnx "pillow>=12"

echo "== long runs: hundreds of kills, and a reader written from the format page"
LOGITCASK_FULL=1 LOGITCASK_PYTHON="$PWD/$python" LOGITCASK_ONNX_DIR="$work/zoo" cargo test --release --workspace

echo "== 20,000 drawn JPEGs, whole and reduced, against Pillow"
"$python" tests/jpeg_sweep.py 20000

echo "== a capture and a run to look at"
cargo build --release --bin logitcask
recipe=pipelines/quick.toml
"$binary" teacher-logits "$recipe" --cache-dir "$work/cache"
"$binary" student "$recipe" --cache-dir "$work/cache" --out "$work/run"
"$binary" cache verify --recipe "$recipe" --cache-dir "$work/cache" --recompute 500
"$binary" report "$work/run" --out "$work/report"
"$binary" export "$work/run" --onnx "$work/zoo/run.onnx" --with-normalisation --check

echo "== CUDA students on a stand-in for a GPU"
tests/fake_gpu/run.sh

echo "== readers: pyarrow, pandas, polars, DuckDB, Hugging Face datasets"
readers="$work/readers"
"$binary" teacher-logits "$recipe" --cache-dir "$readers" --set teacher.0.encoding=f32 --set views.count=2
for cache in "$readers"/*; do
    for encoding in f16 bf16 u8 top3; do
        "$binary" cache transcode "$cache" --encoding $encoding --cache-dir "$readers"
    done
done
for cache in "$readers"/*; do
    "$binary" cache export "$cache" --out "$work/exports/$(basename "$cache")"
    "$binary" cache transcode "$cache" --layout parquet --cache-dir "$readers"
done
HF_HOME="$work/hf" HF_HUB_OFFLINE=1 "$python" tests/readers.py "$readers" "$work/exports"

echo "== TensorBoard, and onnx.checker over every student of the zoo"
"$python" tests/read_events.py "$work/run"
"$python" tests/check_onnx.py "$work"/zoo/*.onnx

echo "== clusters: Slurm on two nodes, hosts that cannot look into each other, and the Kubernetes Job's commands"
tests/cluster.sh
tests/hosts.sh
"$python" -m pip install --quiet kubernetes pyyaml
"$python" tests/kubernetes_job.py "$binary"

echo "== a million samples within a gibibyte"
tests/memory.sh

echo "== the report in a browser"
command -v chromium >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; }
cp pipelines/studies/quick.toml "$work/quick.toml"
"$binary" sweep "$work/quick.toml" --cache-dir "$work/cache" --out "$work/sweep" --jobs 2
"$binary" report "$work/quick.toml" --cache-dir "$work/cache" --out "$work/sweep"
look() { # look PAGE WIDTH FLAGS: draws the page and fails on anything in the console
    rm -f "$work/shot.png"
    chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
        --disable-component-update --user-data-dir="$work/profile" --enable-logging=stderr --v=0 --hide-scrollbars \
        --window-size="$2",2000 "${@:3}" --screenshot="$work/shot.png" "file://$1" 2>"$work/console"
    [ -s "$work/shot.png" ] || { echo "the browser drew nothing of $1"; exit 1; }
    if grep CONSOLE "$work/console"; then echo "$1 has errors"; exit 1; fi
}
for page in "$work/report/report.html" "$work/sweep/report.html"; do
    for width in 1100 500; do
        look "$page" "$width"
        look "$page" "$width" --force-dark-mode
    done
done

echo "== the layers' kernels under AddressSanitizer"
tests/sanitize.sh

echo "== fuzzing: every reader of files, two minutes each"
SECONDS_EACH=120 tests/fuzz.sh

echo "all of it passed"
