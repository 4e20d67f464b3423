#!/usr/bin/env bash
# pipelines/cluster/slurm_array.sh under a real Slurm: a controller and two nodes on this machine, each with a host name of its
# own, four parts of a capture, one node stopped in the middle and its part requeued. The cache must be byte-identical to a single-process one.
# Needs root; installs slurm-wlm and munge by apt-get where they are missing. Part of `make test-full`.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "tests/cluster.sh needs root: slurmd starts jobs as their owners"; exit 1; }
command -v slurmd sbatch munged >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge; }
binary=$(realpath "${CARGO_TARGET_DIR:-target}/release/logitcask")
work=$(mktemp -d)
mkdir -p "$work/state" "$work/n1" "$work/n2" "$work/logs"

# Every daemon by its own process id; a node's jobs by the folder of this test, which no other process names.
started=()
stop() { kill "$@" 2>/dev/null || true; }
on_exit() {
    status=$?
    [ "$status" = 0 ] || tail -n 30 "$work"/logs/* || true
    jobs_of_test=$(pgrep -f "cache-dir $work/" || true)
    stop -9 "${started[@]}" $jobs_of_test
    rm -rf "$work"
    exit "$status"
}
trap on_exit EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

dd if=/dev/urandom of="$work/munge.key" bs=128 count=8 status=none
chmod 600 "$work/munge.key"
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munge.pid" \
    --log-file="$work/logs/munge" --seed-file="$work/munge.seed" >"$work/logs/munged" 2>&1 &
started+=($!)
disown # or bash would report its end
export SLURM_CONF="$work/slurm.conf"
host=$(hostname)
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=10
MessageTimeout=5
ReturnToService=2
JobRequeue=1
# The default waits two minutes before it lets a requeued job run.
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=5,requeue_delay=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES State=UP
CONF

node() {
    # A UTS namespace: what runs on one node sees another host's name on the other, as on a real cluster.
    unshare --uts bash -c "hostname $1-host; exec slurmd -D -N $1" >"$work/logs/$1" 2>&1 &
    pid=$!
    started+=("$pid")
    disown
}
slurmctld -D >"$work/logs/slurmctld" 2>&1 &
started+=($!)
disown
node n1
node n2
n2=$pid

within() { # SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || { echo "gave up waiting: $what"; return 1; }
        sleep 0.2
    done
}
both_idle() { [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ]; }
within 60 "both nodes are idle" both_idle

# The embedded digits' teacher over many synthetic images: some seconds for each part, and no data from elsewhere.
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
echo "== in one process"
"$binary" teacher-logits "$work/recipe.toml" --threads 1 --cache-dir "$work/single"

echo "== in four parts on two nodes"
export LOGITCASK="$binary"
job=$(sbatch --parsable --array=1-4 --cpus-per-task=1 --output="$work/logs/part-%a" \
    pipelines/cluster/slurm_array.sh "$work/recipe.toml" --cache-dir "$work/cluster")
n_chunks() { find "$work/cluster" -name '*.arrow' 2>/dev/null | wc -l; }
some_chunks() { [ "$(n_chunks)" -ge 12 ]; }
busy_n2() { [ -n "$(squeue -h -t running -w n2 -o %K)" ]; }
within 120 "chunks appear" some_chunks
within 60 "a part runs on n2" busy_n2
part=$(squeue -h -t running -w n2 -o %K | head -1)
program=$(pgrep -f "cache-dir $work/cluster .*--part $part/4|--part $part/4 .*cache-dir $work/cluster" | head -1)
[ -n "$program" ] || { echo "the program of part $part is not to be found"; exit 1; }
echo "node n2 goes down while it captures part $part; $(n_chunks) chunks are there"
stepd=$(ps -o ppid= -p "$program" | tr -d ' ')
stop -9 "$n2" "$stepd" "$program"

seen_requeued=
settled() {
    left=$(squeue -h -j "$job" -o '%K %t' 2>/dev/null || true)
    restarts=$(scontrol -o show job "$job" 2>/dev/null | grep "ArrayTaskId=$part " | grep -o 'Restarts=[0-9]*' || true)
    case $restarts in Restarts=[1-9]*) seen_requeued=yes ;; esac
    [ -z "$left" ]
}
within 420 "every part is done" settled
[ -n "$seen_requeued" ] || { echo "part $part was never requeued"; exit 1; }
for part in 1 2 3 4; do
    scontrol -o show job "${job}_$part" | grep -q 'JobState=COMPLETED' || { echo "part $part did not complete"; exit 1; }
done

echo "== compared"
arrow_files() { (cd "$1"/*/ && find . -name '*.arrow' -o -name cache.json | sort | xargs sha256sum); }
diff <(arrow_files "$work/single") <(arrow_files "$work/cluster")
id_of() { "$binary" cache verify "$1"/*/ --json; "$binary" cache show "$1"/*/ --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'; }
id_of "$work/single" >"$work/a"
id_of "$work/cluster" >"$work/b"
[ "$(tail -1 "$work/a")" = "$(tail -1 "$work/b")" ] || { echo "the cache ids differ"; exit 1; }
echo "a capture in four parts, one of them requeued from a dead node, is byte-identical: cache $(tail -1 "$work/b")"
