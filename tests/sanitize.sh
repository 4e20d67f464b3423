#!/usr/bin/env bash
# Runs the tests of crates/layers, whose kernels are where the unsafe code is, under AddressSanitizer: on every set of
# instructions that this processor has, the portable one among them. Needs a nightly compiler, or the stable one told to pass
# for it. Builds into a folder of its own (5 minutes on two cores); the tests take two.
set -euo pipefail
cd "$(dirname "$0")/.."
toolchain=()
if cargo +nightly --version >/dev/null 2>&1; then
    toolchain=(+nightly)
else
    export RUSTC_BOOTSTRAP=1 # the sanitizer's flag is the only nightly thing about it
fi
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=address" CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_LTO=off
cargo "${toolchain[@]}" test --release -p logitcask-layers --lib --tests --target "$host" \
    --target-dir "${CARGO_TARGET_DIR:-target}/sanitize"
