#!/usr/bin/env bash
# A report by GNU parallel, on the cores of this machine or of many that share the folder:
#   gnu_parallel.sh STATES SHARDS INPUT [OPTION...]
# Options are those of attnscope-report; PARALLEL_OPTIONS go to parallel, such as "--sshloginfile hosts --workdir .".
# Run again after any trouble: what is there is not done again. Then: attnscope-merge STATES
set -eu
[ $# -ge 2 ] || { echo "gnu_parallel.sh: expected STATES SHARDS [INPUT] [OPTION...]" >&2; exit 2; }
states=$1 shards=$2
shift 2
mkdir -p "$states"
# shellcheck disable=SC2086 # options are words
seq "$shards" | parallel --will-cite --halt soon,fail=1 ${PARALLEL_OPTIONS:-} \
    "${ATTNSCOPE_REPORT:-attnscope-report}" "$@" --states "$states" --shard "{}/$shards" --threads 1
