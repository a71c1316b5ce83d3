#!/usr/bin/env bash
# attnscope-report on logits of ten thousands, streamed in float: no weight exceeds the largest of its row.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
. "$(dirname "$0")/../support/program.sh"

# q: 24 x 8 floats of size 8192 to 16384 and both signs, k: of size 1 to 2; bytes from a small generator.
numbers() { # low byte range of the top bytes: <seed> <count> <positive top> <negative top> <or of the second byte>
    awk -v seed="$1" -v count="$2" -v up="$3" -v down="$4" -v or="$5" 'BEGIN {
        x = seed
        for (i = 0; i < count; i++) {
            for (j = 0; j < 4; j++) { x = (x * 1103 + 12345) % 1048576; b[j] = int(x / 4096) }
            printf "\\x%02x\\x%02x\\x%02x\\x%02x", b[0], b[1], b[2] % 128 + or, (b[3] % 2 ? up : down)
        }
    }'
}
header='{"q":{"dtype":"F32","shape":[1,1,24,8],"data_offsets":[0,768]},"k":{"dtype":"F32","shape":[1,1,24,8],"data_offsets":[768,1536]}}'
{
    # shellcheck disable=SC2059
    printf "$(printf '\\x%02x\\0\\0\\0\\0\\0\\0\\0' "${#header}")"
    printf '%s' "$header"
    # shellcheck disable=SC2059
    printf "$(numbers 7 192 70 198 0)$(numbers 9 192 63 191 128)"
} >"$work/large.safetensors"

inputs=("$work/large.safetensors")
[ -e "$ATTNSCOPE_SOURCE/../shared/cases/hostile/q1e4" ] && inputs+=("$ATTNSCOPE_SOURCE/../shared/cases/hostile/q1e4")
for input in "${inputs[@]}"; do
    for temperature in 1 1e-3; do
        for scalar in float double; do
            "$program" "$input" --stream --scalar "$scalar" --temperature "$temperature" --rows --csv "$work" \
                >"$work/out" 2>"$work/err" || complain "$input: $(cat "$work/err")"
            awk -F, -v name="$input $scalar $temperature" '
                /^#/ { next }
                !head { for (i = 1; i <= NF; i++) at[$i] = i; head = 1
                        if (!("first_key_weight" in at) || !("max_weight" in at)) { print "no such columns"; exit 1 }
                        next }
                { first = $at["first_key_weight"]; most = $at["max_weight"]
                  if (first == "" || first == "nan") next
                  rows++; if (first + 0 > most * (1 + 1e-6) || most > 1) { print name ": " $0; bad = 1 } }
                END { if (!rows) { print name ": no rows"; bad = 1 }; exit bad }' "$work/rows.csv" >"$work/found" ||
                complain "$(head -n 3 "$work/found")"
        done
    done
done
exit "$failed"
