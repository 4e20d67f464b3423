#!/usr/bin/env bash
# Born-again generations: the student of each generation, as ONNX, is the teacher of the next.
#
#   pipelines/digits/born-again/run.sh [GENERATIONS] [RECIPE] [OUT] [--cache-dir DIR]
#
# 2 generations of kd.toml beside this file, into data/runs/born-again, where nothing else is said. A recipe of one
# teacher whose student names its own mean and std does; a generation that is finished is not trained again.
set -euo pipefail
generations=${1:-2}
recipe=${2:-$(dirname "$0")/kd.toml}
out=${3:-data/runs/born-again}
shift $(($# < 3 ? $# : 3))
logitcask=${LOGITCASK:-${CARGO_TARGET_DIR:-target}/release/logitcask}

teacher=() # the recipe's own, at first
runs=()
for generation in $(seq "$generations"); do
    run="$out/generation-$generation"
    echo "== generation $generation" >&2
    # Another seed for each: otherwise a student would start where its teacher did.
    "$logitcask" teacher-logits "$recipe" "${teacher[@]}" "$@" >&2
    "$logitcask" student "$recipe" "${teacher[@]}" --set seed="$generation" --out "$run" "$@" >&2
    "$logitcask" export "$run" --onnx "$run/student.onnx" --check >&2
    teacher=(--set "teacher.0.onnx=$run/student.onnx" --set "teacher.0.name=generation-$generation")
    runs+=("$run")
done
"$logitcask" report "${runs[@]}" --out "$out" "$@"
