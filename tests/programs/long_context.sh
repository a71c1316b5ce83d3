#!/usr/bin/env bash
# attnscope-long-context: runs, gives the same figures for any number of threads, finds the sink, refuses bad use.
set -u
program="$ATTNSCOPE_BIN/attnscope-long-context"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

figures() { sed '/^time/d; /^memory/d'; } # what does not depend on the machine
"$program" --length 3000 --dimension 16 --output --threads 1 2>"$work/err" | figures >"$work/one" || complain "it fails"
"$program" --length 3000 --dimension 16 --output --threads 3 2>>"$work/err" | figures >"$work/three" || complain "it fails"
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
[ -s "$work/one" ] || complain "it prints nothing"
cmp -s "$work/one" "$work/three" || complain "threads change the figures"
grep -q '^rows      3000 normal, 0 empty, 0 with +inf, 0 with NaN$' "$work/one" || complain "not every row is normal"
grep -q '^  0: 0\.[0-9]*, a sink$' "$work/one" || complain "the first key is no sink"
# The first row sees one key: the least entropy is 0, the largest weight 1.
awk '/^entropy, nats/ { entropy = $3 } /^largest weight p1/ { most = $8 }
     END { exit !(entropy == 0 && most == 1) }' "$work/one" || complain "the first row is wrong"

# In blocks: on any threads the same, and the figures of the whole but for the last digit.
blocks=(--query-block 700 --key-block 1100)
"$program" --length 3000 --dimension 16 --output --threads 1 "${blocks[@]}" 2>"$work/err" | figures >"$work/blocks" || complain "blocks fail"
"$program" --length 3000 --dimension 16 --output --threads 3 "${blocks[@]}" 2>>"$work/err" | figures >"$work/three" || complain "blocks fail"
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
cmp -s "$work/blocks" "$work/three" || complain "threads change the figures of blocks"
paste -d ' ' "$work/one" "$work/blocks" | awk '
    NF % 2 { print "another number of words: " $0; exit 1 }
    { for (i = 1; i <= NF / 2; ++i) { a = $i; b = $(i + NF / 2)
          if (a != b && (a + 0 == 0 || (a - b) ^ 2 > (2e-4 * a) ^ 2)) { print a " is not " b; exit 1 } } }' >"$work/out" ||
    complain "blocks have other figures: $(cat "$work/out")"

# A learned sink: one query and two keys of logit 0 beside a sink of logit 0 (1/3 each), o = (3 + 6)/3; in blocks, too.
header='{"k":{"dtype":"F32","shape":[1,2,1],"data_offsets":[0,8]},"q":{"dtype":"F32","shape":[1,1,1],"data_offsets":[8,12]},"sinks":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},"v":{"dtype":"F32","shape":[1,2,1],"data_offsets":[16,24]}}'
while [ $((${#header} % 8)) -ne 0 ]; do header+=" "; done
{
    printf "\\x$(printf %02x $((${#header} % 256)))\\x$(printf %02x $((${#header} / 256)))\\0\\0\\0\\0\\0\\0%s" "$header"
    printf '\0\0\200\77\0\0\0\100\0\0\0\0\0\0\0\0\0\0\100\100\0\0\300\100' # 1 2, 0, 0, 3 6
} >"$work/sink.safetensors"
for how in "" "--query-block 1 --key-block 1"; do
    # shellcheck disable=SC2086
    "$program" "$work/sink.safetensors" --no-causal --output $how >"$work/out" 2>"$work/err" || complain "a sink fails: $(cat "$work/err")"
    grep -q '^taken     sink: a key of logit 0 without a value beside every row' "$work/out" || complain "it does not tell of the sink"
    while IFS= read -r figure; do
        grep -q "^$figure\$" "$work/out" || complain "beside a sink, $how: not '$figure' in $(cat "$work/out")"
    done <<'END'
entropy of the keys, nats  *0.69315.* 0.69315
entropy with the sink, nats  *1.0986.* 1.0986
weight of the sink  *0.33333.* 0.33333
participation ratio, keys  *2 .* 2
largest weight p1  *0.33333.* 0.33333
mass of the 8 largest  *0.66667.* 0.66667
log-sum-exp  *1.0986.* 1.0986
largest |o| of a row: 3
  0: 0.33333
END
    grep -q 'mean weight among the keys over' "$work/out" || complain "it does not say of what the keys collect"
done

refused 2 "--query-block must be a whole number" --query-block 0
refused 2 "--length must be a whole number" --length 0
refused 2 "got -3" --dimension -3
refused 2 "--threads" --threads 0
refused 2 "--window" --window 5 --no-causal
refused 1 "$work/none.safetensors" "$work/none.safetensors"
exit "$failed"
