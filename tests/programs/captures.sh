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

# Sinks are read, or named where they are not: two keys of logit 0 beside a sink of logit 0.
npy "$work/one_q.npy" '<f4' '(1, 1, 1)' "$one"
npy "$work/no_k.npy" '<f4' '(1, 2, 1)' "$zero$zero"
npy "$work/sinks.npy" '<f4' '(1,)' "$zero"
with_sinks=("q=$work/one_q.npy" "k=$work/no_k.npy" "sinks=$work/sinks.npy")
report "${with_sinks[@]}" --rows --csv "$work"
says 'sinks: a key without a value in every row, softmax beside it'
# Of the row: logits to 0, log-sum-exp of three keys, entropy and weights of the two that have values.
weight() { # weight <number>: that of the larger key, in the first row of rows.csv
    awk -F, -v wanted="$1" 'NR == 1 { for (i = 1; i <= NF; ++i) if ($i == "max_weight") at = i }
        NR == 2 { exit !(at && ($at - wanted) ^ 2 < 1e-30) }' "$work/rows.csv" || complain "the weight is not $1: $(cat "$work/rows.csv")"
}
weight 0.333333333333333333
# The audit is that of logits in which the sink is one more key; without q and k nothing is known of |q| |k|.
cp "$work/audit.csv" "$work/audit_with_sink.csv"
npy "$work/sink_is_a_key.npy" '<f4' '(1, 1, 3)' "$zero$zero$zero"
report "logits=$work/sink_is_a_key.npy" --csv "$work"
grep -q '^lemma2,sharp,not_recovered,1,' "$work/audit_with_sink.csv" || complain "a row with a sink is not audited"
diff <(grep -v '^lemma1\|^corollary1' "$work/audit.csv") <(grep -v '^lemma1\|^corollary1' "$work/audit_with_sink.csv") >"$work/diff" ||
    complain "with a sink the audit is another: $(cat "$work/diff")"
report "${with_sinks[@]}" --normalizer model --rows --csv "$work"
weight 0.333333333333333333
report "${with_sinks[@]}" --normalizer softmax --rows --csv "$work"
says 'sinks: not used, another normalizer is given'
weight 0.5
# Behind a softcap, which caps the logits and not the sink: two keys of logit tanh(2) beside a sink of logit 0.
header='{"__metadata__":{"normalizer":"softcap:1|softmax"},"k":{"dtype":"F32","shape":[1,2,1],"data_offsets":[0,8]},"q":{"dtype":"F32","shape":[1,1,1],"data_offsets":[8,12]},"sinks":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}'
printf "\\x$(printf %02x ${#header})\\x00\\x00\\x00\\x00\\x00\\x00\\x00%s$two$two$one$zero" "$header" >"$work/capped.safetensors"
report "$work/capped.safetensors" --rows --csv "$work"
weight 0.419929191815159307
says 'audit: of the logits that softmax sees, behind the softcap'
grep -q '^lemma2,sharp,not_recovered,1,' "$work/audit.csv" || complain "a row behind a softcap is not audited"
# Beside the file's own normaliser another one: the weights of both.
report "${with_sinks[@]}" --beside softmax --json "$work/json"
[ "$(grep -c '"max_weight": 0.333' "$work/json")" -eq 1 ] && [ "$(grep -c '"max_weight": 0.5,' "$work/json")" -eq 1 ] ||
    complain "JSON does not have both normalisers: $(grep max_weight "$work/json")"
mkdir "$work/beside"
report "${with_sinks[@]}" --beside softmax --rows --csv "$work/beside"
says 'The same heads under softmax, without a sink:'
column() { # column <file> <name>: of its first line of figures
    awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; ++i) if ($i == name) at = i } NR == 2 { print at ? $at : "no column" }' "$work/beside/$1"
}
[ "$(column beside.csv normalizer) $(column beside.csv max_weight) $(column beside_rows.csv max_weight)" = 'softmax 0.5 0.5' ] ||
    complain "beside.csv has not the other normaliser: $(cat "$work/beside/beside.csv" "$work/beside/beside_rows.csv")"
refused 2 '--beside: make_normalizer: a normaliser must be one of' "${with_sinks[@]}" --beside nothing
report "${with_sinks[@]}" --stream --rows --csv "$work"
says 'streamed     no matrix of logits'
weight 0.333333333333333333
"$ATTNSCOPE_BIN/attnscope-plan" "${with_sinks[@]}" >"$work/out" 2>"$work/err" || complain "plan with sinks fails: $(cat "$work/err")"
says 'the file has sinks, what follows is about softmax without them'
npy "$work/halves.npy" '<f4' '(1, 1, 2)' "$half$half"
report "weights=$work/halves.npy" "sinks=$work/sinks.npy"
says 'tensors that are not used: sinks'
npy "$work/three.npy" '<f4' '(3,)' "$zero$zero$zero"
refused 1 'sinks' "q=$work/one_q.npy" "k=$work/no_k.npy" "sinks=$work/three.npy"

# Padding before the tokens: streamed heads and whole matrices give the same, which is that of plain loops.
if command -v python3 >/dev/null; then
    (cd "$work" && python3 -) <<'PY'
import json, random, struct
random.seed(3)
header, data = {}, b""
def add(name, kind, shape, stored):
    global data
    header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(stored)]}
    data += stored
for name in "qkv":
    add(name, "F32", [2, 1, 2, 6, 2], struct.pack("<48f", *(random.gauss(0, 1) for _ in range(48))))
add("attention_mask", "I64", [2, 6], struct.pack("<12q", 0, 0, *[1] * 10))
text = json.dumps(header).encode()
open("padded.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
PY
    for how in "--no-causal" "--causal" "--causal --window 2"; do
        for stream in --stream --no-stream; do
            mkdir -p "$work/t$stream"
            # shellcheck disable=SC2086
            report "$work/padded.safetensors" $stream $how --rows --csv "$work/t$stream"
            says 'attention_mask: 2 of 12 tokens are padding'
        done
        (cd "$work" && python3 - "$how") <<'PY' || complain "streamed rows with padding differ, $how"
import csv, math, struct, sys
file = open("padded.safetensors", "rb").read()
data = file[8 + struct.unpack("<Q", file[:8])[0]:]
q, k = (struct.unpack_from("<48f", data, 192 * i) for i in range(2))
def plain(batch, head, query):
    at = lambda x, i: x[((batch * 2 + head) * 6 + i) * 2:][:2]
    first = 0 if "--window" not in sys.argv[1] else query - 1
    last = 5 if sys.argv[1] == "--no-causal" else query
    padding = 2 if batch == 0 else 0
    if query < padding: return {"visible": 0}
    keys = [j for j in range(6) if j >= padding and first <= j <= last]
    z = [math.fsum(a * b for a, b in zip(at(q, query), at(k, j))) / math.sqrt(2) for j in keys]
    log_sum = max(z) + math.log(math.fsum(math.exp(x - max(z)) for x in z))
    p = [math.exp(x - log_sum) for x in z]
    return {"visible": len(keys), "log_sum_exp": log_sum, "max_logit": max(z), "max_weight": max(p),
            "entropy_nats": -math.fsum(x * math.log(x) for x in p),
            "participation_ratio": 1 / math.fsum(x * x for x in p)}
tables = [list(csv.DictReader(open(f"t--{how}/rows.csv"))) for how in ("stream", "no-stream")]
assert [len(t) for t in tables] == [24, 24]
# A few dozen roundings, of numbers up to 10.
close = lambda a, b: abs(a - b) <= 64 * 2 ** -52 * max(1, abs(b))
wrong = []
for streamed, whole in zip(*tables):
    assert streamed.keys() == whole.keys()
    for name, cell in streamed.items():
        same = cell == whole[name] or "" not in (cell, whole[name]) and close(float(cell), float(whole[name]))
        if not same: wrong.append((name, cell, whole[name]))
    for name, value in plain(*(int(streamed[x]) for x in ("batch", "head", "query"))).items():
        if not close(float(streamed[name]), value): wrong.append((name, streamed[name], value))
print(*wrong[:5], sep="\n", end="")
sys.exit(bool(wrong))
PY
    done
fi
exit "$failed"
