#!/usr/bin/env bash
# Captures 1,000,000 synthetic samples with the embedded digits' teacher and fails where that ever held 1 GiB of memory.
# Part of `make test-full`; needs GNU time (installs it by apt-get, as root, where it is missing).
set -euo pipefail
cd "$(dirname "$0")/.."
binary="${CARGO_TARGET_DIR:-target}/release/logitcask"
[ -x /usr/bin/time ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq time; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/recipe.toml" <<RECIPE
[data]
format = "synthetic"
root = ""
n_classes = 10
channels = 1
synthetic = { n_train = 1000000, height = 32, width = 32 }
[[teacher]]
onnx = "data/digits/teacher.onnx"
size = 8
mean = [0.3048]
std = [0.3757]
RECIPE
/usr/bin/time -v -o "$work/time" "$binary" teacher-logits "$work/recipe.toml" --cache-dir "$work/cache"
kilobytes=$(awk -F': ' '/Maximum resident set size/ { print $2 }' "$work/time")
elapsed=$(awk -F'): ' '/Elapsed/ { print $2 }' "$work/time")
echo "1,000,000 samples in $elapsed, at most $((kilobytes / 1024)) MiB of memory, $(du -sm "$work/cache" | cut -f1) MB on disk"
[ "$kilobytes" -lt 1048576 ] || { echo "that is 1 GiB or more"; exit 1; }
