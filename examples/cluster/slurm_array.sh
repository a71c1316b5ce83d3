#!/usr/bin/env bash
#SBATCH --job-name=attnscope
#SBATCH --cpus-per-task=4
# A report by a Slurm array: each task does its shard, into a folder that all of them see.
#   sbatch --array=1-64 slurm_array.sh STATES INPUT [OPTION...]
# Submit it again after any trouble: what is there is not done again. Then: attnscope-merge STATES
set -eu
[ $# -ge 1 ] || { echo "slurm_array.sh: expected STATES [INPUT] [OPTION...]" >&2; exit 2; }
: "${SLURM_ARRAY_TASK_ID:?submit with sbatch --array=1-COUNT}"
states=$1
shift
mkdir -p "$states"
number=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))
exec "${ATTNSCOPE_REPORT:-attnscope-report}" "$@" --states "$states" --shard "$number/$SLURM_ARRAY_TASK_COUNT" \
    --threads "${SLURM_CPUS_PER_TASK:-1}"
