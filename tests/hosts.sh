#!/usr/bin/env bash
# Claims between hosts, by namespaces: each command below runs under a host name and in a pid namespace of its own, so that none
# can look whether another's process lives. Needs root and takes two minutes, most of them waiting for a dead host to be taken for
# dead. Part of `make test-full`.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests/hosts.sh needs root: only root may make namespaces"; exit 1; }
binary=$(realpath "${CARGO_TARGET_DIR:-target}/release/logitcask")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/recipe.toml" <<RECIPE
[data]
format = "synthetic"
root = ""
n_classes = 10
channels = 1
synthetic = { n_train = 60000, height = 8, width = 8 }
[views]
count = 4
augment = [{ name = "random_crop", size = 8, padding = 1 }]
[[teacher]]
onnx = "data/digits/teacher.onnx"
mean = [0.3048]
std = [0.3757]
batch_size = 64
chunk_rows = 1024
RECIPE
on() { # HOST FLAG...
    local host=$1
    shift
    exec unshare --uts --pid --fork --kill-child --mount-proc sh -c 'hostname "$1"; shift; exec "$@"' - "$host" \
        "$binary" teacher-logits "$work/recipe.toml" --threads 1 "$@"
}
n_chunks() { find "$work/shared" -name '*.arrow' 2>/dev/null | wc -l; }
files() { (cd "$1"/*/ && find . -name '*.arrow' | sort | xargs sha256sum); }

(on alone --cache-dir "$work/alone") >"$work/out" 2>&1 || { cat "$work/out"; exit 1; }

echo "== a living host's chunks are not taken, whatever the numbers of its processes mean elsewhere"
(on nodeA --cache-dir "$work/shared" --part 1/3) >"$work/a" 2>&1 &
first=$!
until [ "$(n_chunks)" -ge 5 ]; do kill -0 $first; sleep 0.05; done
for part in 1/3 2/5; do # the second overlaps it by another cut
    if (on nodeA --cache-dir "$work/shared" --part $part) >"$work/b" 2>&1; then
        # It was waited for, and had finished by then.
        grep -q 'process 1 on host `nodeA`' "$work/b" && ! kill -0 $first 2>/dev/null ||
            { cat "$work/b"; echo "part $part took the chunks of a living process"; exit 1; }
    else
        grep -q 'process 1 on host `nodeA`' "$work/b" || { cat "$work/b"; exit 1; }
    fi
done
wait $first || { cat "$work/a"; exit 1; }

echo "== a dead host's chunks are, without a person"
rm -rf "$work/shared"
(on nodeA --cache-dir "$work/shared") >"$work/a" 2>&1 &
first=$!
until [ "$(n_chunks)" -ge 20 ]; do kill -0 $first; sleep 0.05; done
kill -9 $first
wait $first 2>/dev/null || true
started=$SECONDS
(on nodeB --cache-dir "$work/shared") >"$work/b" 2>&1 || { cat "$work/b"; exit 1; }
grep -q 'host `nodeA`' "$work/b" || { cat "$work/b"; echo "nobody was told what it waited for"; exit 1; }
diff <(files "$work/alone") <(files "$work/shared")
left=$(find "$work/shared" -name '*.claim-*' -o -name '*.tmp-*')
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
echo "completed on another host after $((SECONDS - started)) s, with the same bytes"
