#!/usr/bin/env bash
# attnscope-select: the best keys keep the most, losses add up, sets of a file are those of a policy, refusals say why.
set -u
program="$ATTNSCOPE_BIN/attnscope-select"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

# runs <argument>...: text in $work/out.
runs() { "$program" "$@" >"$work/out" 2>"$work/err" || complain "$* fails: $(cat "$work/err")"; }
holds() { awk "BEGIN { exit !($2) }" || complain "$1: $2"; }
# mean <policy> <figure>: of the CSV, over the heads.
mean() {
    awk -F, -v policy="\"$1\"" -v name="$2" 'NR == 1 { for (i = 1; i <= NF; ++i) if ($i == name) at = i }
        $1 == policy { sum += $at; ++n } END { printf "%.12g", sum / n }' "$work/heads.csv"
}

policies=top:64,quest:64,h2o:64,snapkv:64,tova:64,window:60:4,random:64,certified:0.9:8,ranged:0.9:8,hindsight:0.9:8
runs --policy "$policies" --csv "$work/heads.csv" --json "$work/heads.json" --threads 1 --geometry
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
[ "$(wc -l <"$work/heads.csv")" -eq 81 ] || complain "not a line for each of 10 policies and 8 heads"
best=$(mean top:64 kept)
for policy in quest:64:16 h2o:64:32 snapkv:64:32 tova:64 window:60:4 random:64; do
    kept=$(mean "$policy" kept)
    holds "$policy keeps more than the best keys" "$kept <= $best + 1e-9"
    holds "the losses of $policy do not add up" \
        "($kept + $(mean "$policy" selector_loss) + $(mean "$policy" budget_loss) - 1)^2 < 1e-18"
done
holds "the best keys lose nothing by selection" "$(mean top:64 selector_loss) < 1e-6"
holds "random keys keep more than a cache" "$(mean random:64 kept) < $(mean h2o:64:32 kept)"
for policy in certified:0.9:8 ranged:0.9:8; do
    holds "$policy is not certain" "$(mean "$policy" certified_kept) >= 0.9"
    holds "$policy certifies too much" "$(mean "$policy" certified_kept) <= $(mean "$policy" kept) + 1e-6"
done
holds "moments do not help" "$(mean certified:0.9:8 blocks_read) <= $(mean ranged:0.9:8 blocks_read)"
holds "hindsight reads more" "$(mean hindsight:0.9:8 blocks_read) <= $(mean certified:0.9:8 blocks_read)"
for words in 'lost by' 'Heads (layer, head) that keep the least' 'Among the values: distance d'; do
    grep -qF "$words" "$work/out" || complain "there is no: $words"
done
grep -q '"schema": "attnscope.select/1"' "$work/heads.json" || complain "the JSON has no schema"
[ "$(grep -c '"kept_least_query"' "$work/heads.json")" -eq 80 ] || complain "not all heads are in the JSON"
"$program" --policy "$policies" --json - --geometry --threads 3 >"$work/three.json" 2>/dev/null || complain "three threads"
cmp -s "$work/three.json" "$work/heads.json" || complain "threads change the figures"

# Sets of a file, the same for all heads: a window of 3 keys and a sink.
number() { # little-endian, <value> <bytes>
    local i
    for ((i = 0; i < $2; ++i)); do printf -v hex '\\x%02x' $((($1 >> (8 * i)) & 255)) && data+=$hex; done
}
# sets <file> <name> <shape> <number>...: a safetensors file of one I16 array.
sets() {
    local file=$1 name=$2 shape=$3 header data=""
    shift 3
    header="{\"$name\":{\"dtype\":\"I16\",\"shape\":$shape,\"data_offsets\":[0,$((2 * $#))]}}"
    number ${#header} 8
    printf '%b' "$data" >"$file"
    printf '%s' "$header" >>"$file"
    data=""
    for x in "$@"; do number "$x" 2; done
    printf '%b' "$data" >>"$file"
}
keys=()
for ((query = 0; query < 256; ++query)); do
    keys+=(0)
    for ((key = query - 2; key <= query; ++key)); do keys+=($((key > 0 ? key : -1))); done
done
sets "$work/sets.safetensors" keys '[256,4]' "${keys[@]}"
runs --policy window:3:1 --sets "$work/sets.safetensors" --csv "$work/heads.csv"
mv "$work/heads.csv" "$work/both.csv"
# The file's sets are counted on all rows, those of a policy on rows that see more keys than the budget.
for ((query = 0; query < 256; ++query)); do keys[4 * query]=0; done
"$program" --policy none --sets "$work/sets.safetensors" --csv "$work/own.csv" >/dev/null 2>"$work/err" || complain "--policy none: $(cat "$work/err")"
[ "$(wc -l <"$work/own.csv")" -eq 9 ] || complain "sets of a file: not a line for each head"
awk -F, 'NR > 1 && $5 != 256 { exit 1 }' "$work/own.csv" || complain "sets of a file are not counted on all rows"
# Kept by both, up to the first four rows, whose sets are all keys and keep everything.
paste -d, <(grep '^"window:3:1"' "$work/both.csv") <(tail -n 8 "$work/own.csv") |
    awk -F, '{ own = $(7 + NF / 2) * 256; window = $7 * 252 + 4; if ((own - window) ^ 2 > 1e-8) exit 1 }' ||
    complain "sets of a file keep something else than the same sets of a policy"

# Keys that a query does not see, twice the same, sets for other heads: named.
sets "$work/unseen.safetensors" keys '[256,1]' $(seq 1 256)
refused 1 "a selected key must be one that the query sees: query, key, got 0 and 1" --policy none --sets "$work/unseen.safetensors"
sets "$work/twice.safetensors" keys '[256,2]' $(for q in $(seq 0 255); do echo 0 0; done)
refused 1 "layer 0, head 0: KeySets: a key must stand in a set once: query, key, got 0 and 0" --policy none --sets "$work/twice.safetensors"
sets "$work/few.safetensors" keys '[3,2,1]' 0 0 0 0 0 0
refused 1 "expected sets for 2 layers (or 1), 4 heads (or 1) and 256 queries, found 1, 3 and 2" --policy none --sets "$work/few.safetensors"
sets "$work/none.safetensors" q '[1]' 0
refused 1 "there are no sets of keys" --policy none --sets "$work/none.safetensors"

refused 2 "--policy: selection_policies: a policy must be top, window, h2o" --policy best
refused 2 '"top:0": expected a number from 1' --policy top:0
refused 2 "--policy none: there is nothing to measure without --sets" --policy none
refused 2 "--budget must be a whole number from 1 to 1099511627776, got 0" --budget 16,0
refused 2 "--prompt must be a whole number" --prompt -1
refused 1 "$work/missing.safetensors" "$work/missing.safetensors"

# What is not causal is said; names need not be text.
name="$work/n"$'\xff\n'"ame.safetensors"
printf '%b' '\x98\x00\x00\x00\x00\x00\x00\x00' >"$name"
header='{"q":{"dtype":"F32","shape":[4,2],"data_offsets":[0,32]},"k":{"dtype":"F32","shape":[4,2],"data_offsets":[32,64]}}'
printf '%s%*s' "$header" $((152 - ${#header})) '' >>"$name"
head -c 64 /dev/zero >>"$name"
runs "$name" --policy h2o:2 --json "$work/named.json"
grep -q 'warning: the heads are not causal' "$work/out" || complain "nothing is said of heads that are not causal"
[ "$(head -1 "$work/out" | grep -c 'ame.safetensors')" -eq 1 ] || complain "a name breaks the first line"
grep -q '"schema"' "$work/named.json" || complain "no JSON of a name that is no text"
runs "$name" --policy h2o:2 --causal
grep -q 'warning' "$work/out" && complain "causal heads get a warning"

# A prompt is not counted.
runs --policy h2o:32 --prompt 200 --csv "$work/heads.csv"
awk -F, 'NR > 1 && $5 != 56 { exit 1 }' "$work/heads.csv" || complain "rows of the prompt are counted"

# The table of docs/selectors.md: a line for every policy, with the means of the CSV.
ATTNSCOPE_BIN="$ATTNSCOPE_BIN" "$ATTNSCOPE_SOURCE/examples/selectors_table.sh" "--policy h2o:32,top:32 --prompt 200" >"$work/table" ||
    complain "selectors_table.sh fails"
[ "$(grep -c '^| `' "$work/table")" -eq 2 ] || complain "the table has not a line for each policy"
[ "$(sed -n 's/^| `h2o:32:16` | 32 | \([0-9.]*\) .*/\1/p' "$work/table")" = "$(awk -v x="$(mean h2o:32:16 kept)" 'BEGIN { printf "%.1f", 100 * x }')" ] ||
    complain "the table has other means: $(cat "$work/table")"

# A picture, where gnuplot is.
if command -v gnuplot >/dev/null; then
    runs --policy top,h2o --budget 16,64 --picture "$work/picture.svg"
    grep -q 'Mass kept' "$work/picture.svg" && grep -q 'Lost by h2o' "$work/picture.svg" || complain "the picture lacks its titles"
    ! grep -qi 'nan' "$work/picture.svg" || complain "the picture shows what is no number"
fi
exit "$failed"
