#!/usr/bin/env bash
# attnscope-report on masks that are finite, weights that do not sum to 1, batches and layouts: what it says of them.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

# npy FILE DESCR SHAPE BYTES: little-endian numbers as printf escapes.
npy() {
    local header="{'descr': '$2', 'fortran_order': False, 'shape': $3, }"
    header=$(printf '%-117s' "$header")
    { printf '\x93NUMPY\x01\x00\x76\x00%s\n' "$header"; printf '%b' "$4"; } >"$1"
}
report() { "$program" "$@" >"$work/out" 2>"$work/err" || complain "$* fails: $(cat "$work/err")"; }
says() { grep -qF -- "$1" "$work/out" || complain "it does not say: $1"; }
silent() { grep -qF -- "$1" "$work/out" && complain "it says: $1"; }
one='\x00\x00\x80\x3f' two='\x00\x00\x00\x40' lowest='\xff\xff\x7f\xff' far='\x00\x40\x1c\xc6' # -10000
half='\x00\x00\x00\x3f' quarter='\x00\x00\x80\x3e' minus='\x00\x00\x80\xbe' zero='\x00\x00\x00\x00'

npy "$work/lowest.npy" '<f4' '(1, 2, 2)' "$one$lowest$one$two"
report "logits=$work/lowest.npy" --rows --json "$work/json"
says '1 entries of value -3.4028e+38 are taken for masks'
says 'causal, from the mask'
silent warning
grep -q '"entries": 1' "$work/json" || complain "JSON does not count masks"
grep -A 1 '"query": 0' "$work/json" | grep -q '"visible": 1' || complain "the mask is visible"

npy "$work/far.npy" '<f4' '(1, 2, 2)' "$one$far$two$far"
report "logits=$work/far.npy"
says 'more than 1000 nats lie between the visible keys of 2 of 2 rows'
says '--masked-below X'
report "logits=$work/far.npy" --masked-below -5000
says '2 entries of value -10000 are taken for masks'
silent '--masked-below X'
npy "$work/nothing.npy" '<f4' '(1, 2, 2)' "$lowest$lowest$one$two"
report "logits=$work/nothing.npy"
says '1 rows hold nothing but masks: their keys stay visible'
silent 'without a visible key'
refused 2 '--masked-below must be a number such as -5000, got x' "logits=$work/far.npy" --masked-below x
refused 2 '--masked-below: only logits and biases hold masks' --masked-below -5000

npy "$work/weights.npy" '<f4' '(1, 3, 3)' "$half$quarter$zero$half$quarter$quarter$half$minus$quarter"
report "weights=$work/weights.npy" --rows --json "$work/json"
says 'row sums: least 0.5, median 0.75, largest 1; 2 of 3 rows do not sum to 1'
says '1 negative weights in 1 rows'
says '1 with negative weights'
silent 'with NaN'
[ "$(grep -c '"unassigned_mass": 0.25' "$work/json")" -eq 2 ] || complain "unassigned mass of the first row, and the mean, are not 0.25"
[ "$(grep -c '"max_weight": 0.5' "$work/json")" -ge 3 ] || complain "weights are not taken as they are"
# corollary3, sharp: two rows are audited, one of them does not sum to 1.
sed -n '/"id": "corollary3"/,/}/p' "$work/json" | sed -n '/"sharp"/,$p' | grep -q '"undefined": 1' ||
    complain "a statement that assumes the sum 1 is not undefined"
report "weights=$work/weights.npy" --causal
says '2 rows have weight on keys that the mask hides, up to 0.25; it is kept'
report "weights=$work/weights.npy" --normalise-weights --rows --json "$work/json"
says 'and are divided by their sum'
grep -q '"max_weight": 0.6666' "$work/json" || complain "--normalise-weights does not divide"
refused 2 '--normalise-weights: the input is not read as weights' "logits=$work/far.npy" --normalise-weights

# Two batches of one layer and one head; two queries of width 1.
npy "$work/q.npy" '<f4' '(2, 1, 1, 2, 1)' "$one$two$two$one"
npy "$work/k.npy" '<f4' '(2, 1, 1, 2, 1)' "$one$two$one$one"
report "q=$work/q.npy" "k=$work/k.npy"
says 'batch layer head'
says 'all batches in turn'
report "q=$work/q.npy" "k=$work/k.npy" --batch 1 --json "$work/json"
says 'batch 1'
[ "$(grep -c '"layer": 0' "$work/json")" -eq 2 ] || complain "--batch does not pick one" # heads and attention
refused 2 '--batch: there is no batch 2; the input has batches 0 to 1' "q=$work/q.npy" "k=$work/k.npy" --batch 2
refused 2 '--batch: tensor logits' "logits=$work/far.npy" --batch 0
npy "$work/four.npy" '<f4' '(2, 1, 2, 1)' "$one$two$two$one"
report "q=$work/four.npy" "k=$work/four.npy"
says 'q [2,1,2,1]: the first dimension is taken for layers'
report "q=$work/four.npy" "k=$work/four.npy" --batch 1
says 'q [2,1,2,1]: the first dimension is taken for a batch'

# numpy.savez, where there is one: as the three .npy files that hold the same.
cases=${ATTNSCOPE_DATA_DIR:-$ATTNSCOPE_SOURCE/../shared/data}/../cases
if [ -e "$cases/capture.npz" ] && command -v unzip >/dev/null; then
    (cd "$work" && unzip -qo "$cases/capture.npz" -d npz)
    report "$cases/capture.npz" --rows --json "$work/json"
    grep -v '"input"' "$work/json" >"$work/npz.json"
    (cd "$work/npz" && "$program" q=q.npy k=k.npy v=v.npy --rows --json "$work/json" >/dev/null) || complain ".npy parts fail"
    grep -v '"input"' "$work/json" | cmp -s - "$work/npz.json" || complain ".npz and .npy differ"
fi

# [tokens,heads,d]: 4 tokens, 2 heads of queries, 1 of keys.
npy "$work/nhd_q.npy" '<f4' '(4, 2, 1)' "$one$two$one$one$two$two$one$two"
npy "$work/nhd_k.npy" '<f4' '(4, 1, 1)' "$one$two$one$one"
report "q=$work/nhd_q.npy" "k=$work/nhd_k.npy"
says 'say --layout nhd'
report "q=$work/nhd_q.npy" "k=$work/nhd_k.npy" --layout nhd
says '1 layers x 2 heads, 4 queries, 4 keys'
silent warning
refused 2 '--layout must be hnd or nhd, got bhnd' --layout bhnd
refused 2 '--window must be a whole number >= 0' "q=$work/four.npy" "k=$work/four.npy" --window -1
exit "$failed"
