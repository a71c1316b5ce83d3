#!/usr/bin/env bash
# attnscope-report on captures with large offsets, equal keys and temperatures at the ends of double: no statement in
# its sharp form is violated. The captures lie in ../shared/cases; skipped (77) where that is not there.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
here="$(cd "$(dirname "$0")" && pwd)"
# shellcheck source=tests/support/program.sh
. "$here/../support/program.sh"
cases="${ATTNSCOPE_DATA_DIR:-$here/../../../shared/data}/../cases"
[ -f "$cases/common_offset.safetensors" ] || exit 77

for capture in common_offset.safetensors equal_large.safetensors hostile/tiny hostile/k_equal hostile/q1e4; do
    for temperature in 4.9406564584124654e-324 1e-310 1e-300 1e-30 0.3 1 1e30 1e155 1e300 1.7e308; do
        "$program" "$cases/$capture" --temperature "$temperature" >"$work/out" 2>"$work/err" ||
            complain "$capture at temperature $temperature: $(cat "$work/err")"
        awk '$2 == "sharp" && $4 != "-" { rows += $4; if ($9 > 0) print } END { if (!rows) print "no row was audited" }' \
            "$work/out" >"$work/bad"
        [ ! -s "$work/bad" ] || complain "$capture at temperature $temperature: $(cat "$work/bad")"
    done
done
exit "$failed"
