#!/usr/bin/env bash
# attnscope-training-temperature: its quick form, tables and files, the same for any number of threads.
set -u
program="$ATTNSCOPE_BIN/attnscope-training-temperature"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

pictures=()
command -v gnuplot >/dev/null || { pictures=(--no-pictures); echo "without gnuplot: pictures are not checked"; }
"$program" --quick --threads 1 --out "$work/one" ${pictures[@]+"${pictures[@]}"} >"$work/out" 2>"$work/err" ||
    complain "it fails: $(cat "$work/err")"
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
for text in 'recall: softmax at temperature T' 'maximum: softmax' 'recall: trained at 32 to 64 tokens' 'entmax:1.5'; do
    grep -q "$text" "$work/out" || complain "the tables have no: $text"
done
"$program" --quick --threads 3 --out "$work/three" --no-pictures >/dev/null 2>&1 || complain "three threads fail"
cmp -s "$work/one/training.csv" "$work/three/training.csv" && cmp -s "$work/one/lengths.csv" "$work/three/lengths.csv" ||
    complain "threads change the results"
# 2 tasks x 3 temperatures x 4 lines of 25 steps; 2 tasks x 2 normalisers x 2 lengths.
[ "$(wc -l <"$work/one/training.csv")" -eq 25 ] || complain "training.csv has other lines"
[ "$(wc -l <"$work/one/lengths.csv")" -eq 9 ] || complain "lengths.csv has other lines"
# |J| keeps to 1/(2T) in every line.
awk -F, 'NR > 1 && $12 > 1 / (2 * $2) * (1 + 1e-6) { bad = 1 } END { exit bad }' "$work/one/training.csv" ||
    complain "a row is above 1/(2T)"
if [ ${#pictures[@]} -eq 0 ]; then
    for name in training lengths; do
        grep -q '</svg>' "$work/one/$name.svg" || complain "$name.svg is no picture"
    done
fi
refused 1 "the folder $work/none does not exist" --quick --out "$work/none/results"
refused 2 "--threads must be a whole number" --threads 0
exit "$failed"
