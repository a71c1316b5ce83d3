#!/usr/bin/env bash
# attnscope-plan: every answer applied keeps its promise; the same for any number of threads; refusals that say why.
set -u
program="$ATTNSCOPE_BIN/attnscope-plan"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

# plan <argument>...: runs it, text in $work/out.
plan() { "$program" "$@" >"$work/out" 2>"$work/err" || complain "$* fails: $(cat "$work/err")"; }
# least <name>: the least figure of that line of the text.
least() { sed -n "s/^ *$1 *\([^ ]*\) .*/\1/p" "$work/out" | head -n 1; }
at_least() { awk -v a="$2" -v b="$3" 'BEGIN { exit !(a + 0 >= b + 0) }' || complain "$1: $2 is less than $3"; }

# The synthetic heads, every question.
plan --json "$work/all.json" --threads 1
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
for text in 'Assumption at 131072 keys' 'Weight 0.5 on the best key' 'Entropy as now' 'Participation ratio as now' \
    'Keys to keep so that the output moves by at most 1 %' 'Bits of the key cache'; do
    grep -q "^$text" "$work/out" || complain "there is no: $text"
done
at_least 'top-k applied' "$(least 'applied top-k: share of rows within')" 0.99
at_least 'top-p applied' "$(least 'applied top-p: share of rows within')" 0.99
at_least 'bits applied' "$(least 'applied: share of rows within')" 0.99
at_least 'weight applied' "$(least 'check on rows grown key by key: share')" 0.5
"$program" --json - --threads 3 >"$work/three.json" 2>/dev/null || complain "three threads fail"
cmp -s "$work/three.json" "$work/all.json" || complain "threads change the plan"
[ "$(grep -c '"layer"' "$work/all.json")" -eq 8 ] || complain "not one plan for each of 8 heads"

# A weight that equal keys have anyway, a mass, a share; the higher the weight, the lower the temperature.
plan --weight 0.9 --length 4096 --share 0.9
strict=$(least 'temperature needed, easiest head first')
plan --weight 0.1 --length 4096 --share 0.9
at_least 'temperature for less weight' "$(least 'temperature needed, easiest head first')" "$strict"
plan --mass 0.95 --share 1
at_least 'mass applied' "$(least 'applied top-k: share of rows within')" 1
grep -q 'certificate' "$work/out" && complain "a mass needs no certificate"
plan --bits --key-scale token --output-error 0.05
grep -q 'one scale for each token) that move the output by at most 5 %' "$work/out" || complain "the key scale is not told"


# Formats of keys and values: a line that falls in the error as it rises in bytes, the same in the JSON.
plan --bits --output-error 0.02 --formats f16,q8_0,q4_0+rotated,kivi2,nf4 --json "$work/formats.json"
grep -q 'of 25 pairs those that no other beats in both' "$work/out" || complain "not every pair of formats is tried"
sed -n '/^    keys  /,/^    one pair/p' "$work/out" | sed '1d;$d' >"$work/line"
awk '{ if (NR > 1 && !($3 > bytes && $4 + 0 < error)) bad = 1; bytes = $3; error = $4 + 0 } END { exit bad || NR < 3 }' \
    "$work/line" || complain "no Pareto line: $(cat "$work/line")"
grep -q '^    f16  *f16  *256 ' "$work/line" || complain "halves of 64 + 64 channels take 256 bytes"
grep -q '^    affine2:channel32  *affine2:token32  *48 ' "$work/line" || complain "KIVI's 2 bits take 48 bytes"
[ "$(grep -c '"on_pareto_line": true' "$work/formats.json")" -eq "$(wc -l <"$work/line")" ] || complain "JSON has another line"
[ "$(grep -c '"on_pareto_line"' "$work/formats.json")" -eq 25 ] || complain "JSON has not 25 pairs"
[ "$(grep -c '"fewest_bytes"' "$work/formats.json")" -eq 8 ] || complain "JSON has no answer for each head"
grep -q 'one pair for all heads: 1[0-9][0-9] bytes, keys q8_0, values ' "$work/out" || complain "fewest bytes: $(cat "$work/out")"
plan --bits --formats q4_0 --output-error 1e-9
grep -q 'one pair for all heads: none of these' "$work/out" || complain "q4_0 keeps 1e-9"
refused 2 '--formats: only --bits stores keys and values' --mass 0.5 --formats q4_0
refused 2 '--formats: cache_format: a format is f16, bf16' --bits --formats q4_0,q4_2
refused 2 '+rotated behind any, got q9' --bits --formats q9
refused 2 '+rotated behind any, got ' --bits --formats 'q4_0,'

# What no temperature can do is said in one line.
plan --entropy 30 --length 64
grep -q 'no temperature gives it to [0-9]* of [0-9]* rows, none to the share in 8 heads: it is more than a row' "$work/out" ||
    complain "more entropy than there is: $(cat "$work/out")"

# The number behind --entropy is optional, wherever the capture stands.
"$program" --json "$work/heads.json" --entropy 1 >/dev/null 2>&1 || complain "a number behind --entropy"
grep -q '"value": 1.0' "$work/heads.json" || complain "--entropy 1 does not ask for 1 nat"
refused 1 "$work/none.safetensors" --entropy 2 "$work/none.safetensors"
refused 1 "$work/none.safetensors" --entropy "$work/none.safetensors"
refused 1 "$work/none.safetensors" "$work/none.safetensors" --participation
refused 2 "--entropy must be a number >= 0, in nats, got low" "$work/none.safetensors" --entropy low
refused 2 "--key-scale: only --bits stores keys" --mass 0.5 --key-scale token

for weight in 0 1 1.5 -1 nan x ''; do
    refused 2 "--weight must be a number between 0 and 1, both excluded, got $weight" --weight "$weight"
done
refused 2 "--length must be a whole number from 2 to 16777216, got 1" --length 1
refused 2 "--share must be a number in (0, 1], got 0" --share 0
refused 2 "--mass must be a number in (0, 1], got 2" --mass 2
refused 2 "--participation must be a number >= 1, in keys, got 0.5" --participation 0.5
refused 2 "--output-error must be a number > 0, got 0" --output-error 0
refused 2 "--key-scale must be channel or token, got head" --key-scale head
refused 2 "--growth must be a number such as 0 or -0.1, got a" --growth a
refused 1 "the folder $work/none does not exist" --json "$work/none/plan.json"
refused 1 "$work/none.safetensors" "$work/none.safetensors"

# Logits alone: no values, no keys. Two queries and two keys as .npy: 2 x 2 numbers, all masked in the second file.
npy() { # FILE NUMBER...
    local file=$1 header="{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2), }"
    shift
    header=$(printf '%-117s' "$header")
    { printf '\x93NUMPY\x01\x00\x76\x00%s\n' "$header"; printf '%b' "$@"; } >"$file"
}
npy "$work/flat.npy" '\x00\x00\x80\x3f' '\x00\x00\x00\x00' '\x00\x00\x00\x00' '\x00\x00\x80\x3f'
npy "$work/masked.npy" '\x00\x00\x80\xff' '\x00\x00\x80\xff' '\x00\x00\x80\xff' '\x00\x00\x80\xff'
plan "logits=$work/flat.npy"
grep -q 'Keys to keep\|Bits' "$work/out" && complain "logits alone have no output"
refused 2 "--output-error: the capture has no values v (--mass does without)" "logits=$work/flat.npy" --output-error 0.1
refused 2 "--bits: the capture must have q, k and v" "logits=$work/flat.npy" --bits
refused 2 "--scale: only q and k are scaled" "logits=$work/flat.npy" --scale 2
refused 1 "no row has two visible keys and finite logits: there is nothing to plan from" "logits=$work/masked.npy"

# Behind a softcap: the plans of the logits that softmax sees, and no bits of keys.
if command -v python3 >/dev/null; then
    python3 - "$work" <<'PY' || complain "the captures of a softcap are not written"
import array, json, math, random, struct, sys
random.seed(5)
heads, n, d, cap = 2, 40, 4, 2.0
def numbers(sd): return [array.array("d", [random.gauss(0, sd) for _ in range(n * d)]) for _ in range(heads)]
q, k, v = numbers(2), numbers(2), numbers(1)
logits = [array.array("d", [cap * math.tanh(sum(a[i * d + c] * b[j * d + c] for c in range(d)) / math.sqrt(d) / cap)
                            for i in range(n) for j in range(n)]) for a, b in zip(q, k)]
def write(name, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for key, (shape, parts) in tensors.items():
        bytes_ = b"".join(part.tobytes() for part in parts)
        header[key] = {"dtype": "F64", "shape": shape, "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    open(f"{sys.argv[1]}/{name}.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
rows = [heads, n, d]
write("capped", {"q": (rows, q), "k": (rows, k), "v": (rows, v)}, {"causal": "true", "normalizer": "softcap:2|softmax"})
write("seen", {"logits": ([heads, n, n], logits), "v": (rows, v)}, {"causal": "true"})
PY
    for capture in capped seen; do plan "$work/$capture.safetensors" --length 4096 --json "$work/$capture.json"; done
    python3 - "$work/capped.json" "$work/seen.json" <<'PY' || complain "behind a softcap, other plans than of its logits"
import json, sys
def numbers(x, path=""):
    if isinstance(x, dict): return [y for key in sorted(x) for y in numbers(x[key], f"{path}/{key}")]
    if isinstance(x, list): return [y for i, z in enumerate(x) for y in numbers(z, f"{path}/{i}")]
    return [(path, x)]
a, b = (numbers(json.load(open(path))["heads"]) for path in sys.argv[1:])
assert len(a) == len(b) > 40
for (path, x), (other, y) in zip(a, b):
    assert path == other, (path, other)
    assert x == y or abs(x - y) <= 1e-3 * abs(y) if isinstance(x, float) else x == y, (path, x, y)
PY
    plan "$work/capped.safetensors"
    grep -q '^taken: normaliser: softcap:2|softmax, planned from the logits that its softmax sees$' "$work/out" || complain "the softcap is not told"
    grep -q '^Bits' "$work/out" && complain "bits of keys behind a softcap"
    refused 2 "nor a softcap" "$work/capped.safetensors" --bits
fi

# Rows of a long head are read one by one: its matrix of logits would take 2 GiB. Sanitizers need more to start.
tokens=16384 bytes=$((16384 * 8 * 4))
header="$(printf '{"q":{"dtype":"F32","shape":[1,%d,8],"data_offsets":[0,%d]},"k":{"dtype":"F32","shape":[1,%d,8],"data_offsets":[%d,%d]}}' \
    "$tokens" "$bytes" "$tokens" "$bytes" $((2 * bytes)))"
{
    # shellcheck disable=SC2059
    printf "$(printf '\\x%02x\\0\\0\\0\\0\\0\\0\\0' "${#header}")"
    printf '%s' "$header"
    head -c $((2 * bytes)) /dev/zero
} >"$work/long.safetensors"
limit=unlimited
(ulimit -v 1000000 && "$program" --help) >"$work/out" 2>"$work/err" && limit=1000000
(ulimit -v "$limit" && "$program" "$work/long.safetensors" --causal --mass 0.9 --threads 1) >"$work/out" 2>"$work/err" ||
    complain "long head: $(cat "$work/err")"

# Real heads, where there are any.
data=${ATTNSCOPE_DATA_DIR:-$ATTNSCOPE_SOURCE/../shared/data}
for capture in gpt2-heads/john_smith_n9 tiny-gpt2/reference_192 stories260k/reference_192; do
    [ -e "$data/$capture.safetensors" ] || { echo "without $capture: not planned for"; continue; }
    plan "$data/$capture.safetensors" --length 131072 --weight 0.5
    at_least "$capture, weight" "$(least 'check on rows grown key by key: share')" 0.49
    plan "$data/$capture.safetensors" --output-error 0.01 --share 0.99
    at_least "$capture, top-k" "$(least 'applied top-k: share of rows within')" 0.99
    at_least "$capture, top-p" "$(least 'applied top-p: share of rows within')" 0.98
    plan "$data/$capture.safetensors" --bits
    at_least "$capture, bits" "$(least 'applied: share of rows within')" 0.99
    grep -q '^    one pair for all heads: [0-9.]* bytes, keys ' "$work/out" || complain "$capture, no formats: $(cat "$work/out")"
    plan "$data/$capture.safetensors" --entropy
done
exit "$failed"
