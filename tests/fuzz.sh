#!/usr/bin/env bash
# Runs every target under fuzz/ for SECONDS_EACH seconds (60), or those that are named: SECONDS_EACH=300 tests/fuzz.sh open_idx
# Needs cargo-fuzz, which it installs, and a nightly compiler or the stable one told to pass for it. A finding stops it and
# stays in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
if cargo +nightly --version >/dev/null 2>&1; then
    fuzz="cargo +nightly fuzz"
else
    # The sanitizer's flags are the only nightly thing about it.
    export RUSTC_BOOTSTRAP=1
    fuzz="cargo fuzz"
fi
python3 fuzz/seeds.py
[ -d /dev/shm ] && export TMPDIR=/dev/shm # files in memory
targets=${*:-$($fuzz list)}
for target in $targets; do $fuzz build "$target"; done
for target in $targets; do
    echo "== $target, ${SECONDS_EACH:=60} s"
    longest=$((1 << 16))
    $fuzz run "$target" -- -max_total_time="$SECONDS_EACH" -max_len=$longest -timeout=20 -print_final_stats=1 -verbosity=0
done
echo "no findings"
