#!/usr/bin/env bash
# A report by an indexed job of Kubernetes (kubernetes_job.yaml): what its pods run, on a volume that all of them see.
#   kubernetes_job.sh STATES SHARDS INPUT [OPTION...]
# A pod that is started again does what its shard lacks. Then: attnscope-merge STATES
set -eu
[ $# -ge 2 ] || { echo "kubernetes_job.sh: expected STATES SHARDS [INPUT] [OPTION...]" >&2; exit 2; }
: "${JOB_COMPLETION_INDEX:?run it in a job with completionMode: Indexed}"
states=$1 shards=$2
shift 2
mkdir -p "$states"
exec "${ATTNSCOPE_REPORT:-attnscope-report}" "$@" --states "$states" --shard "$((JOB_COMPLETION_INDEX + 1))/$shards" --threads 1
