#!/bin/bash
# Captures a recipe's teacher logits as a Slurm array, one part of the chunks per task, into one cache on a shared disk:
#
#     make setup                                                    # once, on the shared disk
#     sbatch --array=1-8 pipelines/cluster/slurm_array.sh pipelines/cifar10/resnet56-resnet8/kd.toml
#
# Tasks need not run at the same time, nor know of each other; whichever completes a view makes it part of the cache.
# A task that is stopped, preempted or requeued keeps its finished chunks and goes on from there; after a node that died it
# first waits until that one has been silent for 90 s. To run one part again:
#
#     PARTS=8 sbatch --array=3 pipelines/cluster/slurm_array.sh RECIPE
#
# On GPUs: `make setup PROVIDER=cuda`, then PROVIDER=cuda sbatch --gres=gpu:1 ...
#SBATCH --job-name=teacher-logits
#SBATCH --output=%x-%A_%a.log
#SBATCH --cpus-per-task=4
#SBATCH --requeue
# A minute before the time limit, so that the batch in work is finished and its chunk may be.
#SBATCH --signal=B:TERM@60
set -euo pipefail

recipe=${1:?usage: sbatch --array=1-N $0 RECIPE [FLAG ...]}
shift
: "${SLURM_ARRAY_TASK_ID:?this is for sbatch --array=1-N}"
if [ -z "${PARTS:-}" ] && [ "${SLURM_ARRAY_TASK_MIN}" != 1 ]; then
    echo "the array does not begin at 1; to run single parts say of how many: PARTS=8 sbatch --array=3 ..." >&2
    exit 2
fi
parts=${PARTS:-$SLURM_ARRAY_TASK_MAX}

# The script itself lies in Slurm's spool by now; the project is where sbatch was called.
cd "${SLURM_SUBMIT_DIR}"
# `exec`, so that Slurm's signals reach the program and not a shell that waits for it.
exec "${LOGITCASK:-target/release/logitcask}" teacher-logits "$recipe" --provider "${PROVIDER:-cpu}" \
    --threads "${SLURM_CPUS_PER_TASK:-1}" --part "${SLURM_ARRAY_TASK_ID}/${parts}" "$@"
