#!/usr/bin/env bash
# Situations from public reports of other projects, with the right values of numpy: one function a case. Without the
# folder of the cases it is skipped.
set -u
cases=${ATTNSCOPE_CASES_DIR:-${ATTNSCOPE_DATA_DIR:-$ATTNSCOPE_SOURCE/../shared/data}/../cases}/public
[ -d "$cases" ] || { echo "no folder $cases"; exit 77; }
export LC_ALL=C
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
failed=0
complain() { echo "$name: $1"; failed=1; }

# Runs a program; text in $work/out.
attnscope() { "$ATTNSCOPE_BIN/attnscope-$1" "${@:2}" >"$work/out" 2>"$work/err" || complain "$* fails: $(cat "$work/err")"; }
says() { grep -qE -- "$1" "$work/out" || complain "it does not say: $1"; }
# near FOUND RIGHT [TOLERANCE]: relative to 1 + |RIGHT|.
near() {
    awk -v a="$1" -v b="$2" -v t="${3:-1e-4}" 'BEGIN { d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(a != "" && d <= t * (1 + m)) }' ||
        complain "found '$1', right is $2"
}
# means KEY: that figure of the mean of every head in $work/json, one a line.
means() { sed -n '/"mean": {/,/"jacobian"/{s/^ *"'"$1"'": \([^,]*\),*$/\1/p}' "$work/json"; }
# rows KEY: that figure of every row of the only head (its mean comes first).
rows() { sed -n 's/^ *"'"$1"'": \([^,]*\),*$/\1/p' "$work/json" | tail -n +2; }
# right KEY: the numbers of expected.json under that key, one a line.
right() { tr -d '\n ' <"$folder/expected.json" | sed -E 's/.*"'"$1"'":(\[+[^"]*\]+).*/\1/' | tr -d '[]}' | tr ',' '\n' | awk 'NF'; }
# Every figure against its right value.
compare() { # FOUND RIGHT
    [ "$(wc -l <"$1")" -eq "$(wc -l <"$2")" ] || complain "$(wc -l <"$1") figures for $(wc -l <"$2")"
    while read -r found expected; do near "$found" "$expected"; done < <(paste -d ' ' "$1" "$2")
}
# The report's means of entropy and largest weight against expected.json.
report_means() { # ENTROPY_KEY WEIGHT_KEY ARGUMENT...
    local entropy=$1 weight=$2
    shift 2
    attnscope report "$@" --json "$work/json"
    means entropy_nats >"$work/found"
    right "$entropy" >"$work/right"
    compare "$work/found" "$work/right"
    means max_weight >"$work/found"
    right "$weight" >"$work/right"
    compare "$work/found" "$work/right"
}

# capture <folder> <ids> [argument]...: runs attnscope-capture on a model, output in $work/out and $work/err.
capture() { "$ATTNSCOPE_BIN/attnscope-capture" "$cases/$1" --tokens "$cases/$2" "${@:3}" >"$work/out" 2>"$work/err"; }
# loss_is <value of four decimals>
loss_is() { grep -q "^loss      $1 nats" "$work/out" || complain "loss $1 expected: $(cat "$work/out" "$work/err")"; }
# one_line <part>: that is what standard error holds.
one_line() {
    [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$1" "$work/err" || complain "message: $(cat "$work/err")"
}
# metadata_are <key> <beginning of the value> <file>: of a safetensors file.
metadata_are() { head -c 100000 "$3" | grep -aqF "\"$1\":\"$2" || complain "metadata $1 are not $2"; }

case_01_capture_keeps_the_scale() {
    capture 01-capture-loses-scale 01-capture-loses-scale/ids --out "$work/01.safetensors" || complain "fails"
    loss_is 9.7170
    # 1/sqrt(8) times 1, 1/2, 1/3
    metadata_are scale 0.35355339059327373,0.17677669529663687,0.11785113019775 "$work/01.safetensors"
    metadata_are window 0 "$work/01.safetensors"
    metadata_are causal true "$work/01.safetensors"
    metadata_are normalizer softmax "$work/01.safetensors"
    metadata_are temperature 1 "$work/01.safetensors"
    report_means entropy_nats_mean max_weight_mean "$work/01.safetensors"
}
case_03_capture_keeps_the_window() {
    capture 03-capture-loses-window 03-capture-loses-window/ids --out "$work/03.safetensors" || complain "fails"
    loss_is 4.7772
    metadata_are window 6 "$work/03.safetensors"
    metadata_are scale 0.4082482904638631 "$work/03.safetensors"
    report_means entropy_nats_mean max_weight_mean "$work/03.safetensors"
}
case_05_index_decides() {
    capture 05-index-decides 05-index-decides/ids || complain "fails"
    loss_is 5.7050
    one_line "model.layers.0.self_attn.q_proj.weight in model-00001-of-00002.safetensors"
}
case_06_empty_weight_map() {
    capture 06-empty-weight-map 06-empty-weight-map/ids && complain "not refused"
    one_line "model.safetensors.index.json: weight_map: expected tensors, found none"
}
case_07_embedding_shape() {
    capture 07-embedding-shape/wider 07-embedding-shape/ids && complain "not refused"
    one_line "model.embed_tokens.weight: expected shape [40, 16] by config.json, found [40, 18]"
    capture 07-embedding-shape/transposed 07-embedding-shape/ids && complain "not refused"
    one_line "expected shape [40, 16] by config.json, found [16, 40]"
}
case_09_unused_tensors() {
    capture 09-unused-bias-tensors 09-unused-bias-tensors/ids || complain "fails"
    loss_is 5.7481
    one_line "tensors that are not used: "
    local layer part
    for layer in 0 1; do
        for part in k o q v; do
            grep -qF "model.layers.$layer.self_attn.${part}_proj.bias" "$work/err" || complain "$layer $part is not named"
        done
    done
}
case_11_tokenizer_json() {
    local folder="$cases/11-tokenizer-json-ignored" text
    [ "$("$ATTNSCOPE_BIN/attnscope-tokenize" "$folder/gpt2" --text "$folder/text0")" = "98 257 33 260 53 33 99" ] ||
        complain "ids of text0"
    [ "$("$ATTNSCOPE_BIN/attnscope-tokenize" "$folder/gpt2" --text "$folder/text1")" = \
        "61 125 106 110 96 116 117 98 115 117 125 63 263 264 61 125 106 110 96 102 111 101 125 63" ] || complain "ids of text1"
    for text in text0 text1; do # splits digits: not GPT-2's
        "$ATTNSCOPE_BIN/attnscope-tokenize" "$folder/smol" --text "$folder/$text" >"$work/out" 2>"$work/err" && complain "not refused"
        one_line "smol/tokenizer.json: pre_tokenizer: expected ByteLevel without a prefix space"
    done
}
case_17_not_a_safetensors_file() {
    local file
    for file in "$folder"/*.safetensors; do
        "$ATTNSCOPE_BIN/attnscope-report" "$file" >"$work/out" 2>"$work/err" && complain "$(basename "$file") is not refused"
        if head -c 7 "$file" | grep -q version; then one_line "run git lfs pull"; else one_line "an HTML page; the download failed"; fi
    done
}
case_18_infinity_in_config() {
    capture 18-infinity-in-config 18-infinity-in-config/ids && complain "not refused"
    one_line "config.json: at byte 272: Infinity"
}
case_23_tokenizer_json_alone() {
    local folder="$cases/23-tokenizer-json-only"
    [ "$("$ATTNSCOPE_BIN/attnscope-tokenize" "$folder" --text "$folder/text")" = "263 264 33 260 53" ] || complain "ids"
}
# A capture written by hand: the metadata say causal = false.
case_10_long_context_ignores_causal_metadata() {
    attnscope long-context "$folder/cross.safetensors"
    says 'every query sees every key'
    near "$(awk '/^entropy, nats/ { print $3 }' "$work/out")" 0.847219
    near "$(awk '/^entropy, nats/ { print $5 }' "$work/out")" 1.42395
    near "$(awk '/^entropy, nats/ { print $7 }' "$work/out")" 1.70465
    attnscope long-context "$folder/cross_more_queries.safetensors"
    says '^rows      12 normal, 0 empty'
    near "$(awk '/^entropy, nats/ { print $3 }' "$work/out")" 0.0634929
    near "$(awk '/^entropy, nats/ { print $7 }' "$work/out")" 1.18203
}
case_12_npy_variants() {
    right python2_long >"$work/right"
    attnscope report "logits=$folder/python2_long.npy" --json "$work/json"
    means entropy_nats >"$work/found"
    compare "$work/found" "$work/right"
    right bfloat16 >"$work/right"
    attnscope report "logits=$folder/bfloat16_V2.npy" --bfloat16 --json "$work/json"
    means entropy_nats >"$work/found"
    compare "$work/found" "$work/right"
}
case_14_negative_weights() {
    attnscope report "$folder/weights.safetensors" --rows --json "$work/json"
    says '3 negative weights in 2 rows'
    grep -q 'with NaN' "$work/out" && complain "negative weights pass for NaN"
    rows max_weight >"$work/found"
    right max_weight >"$work/right"
    compare "$work/found" "$work/right"
    rows row_sum >"$work/found"
    right row_sum >"$work/right"
    compare "$work/found" "$work/right"
}
case_21_seq_heads_layout() {
    attnscope report "$folder/seq_first.safetensors"
    says 'say --layout nhd'
    attnscope report "$folder/seq_first.safetensors" --layout nhd --json "$work/json"
    means entropy_nats >"$work/found"
    right entropy_nats_mean >"$work/right"
    compare "$work/found" "$work/right"
}

for case in $(declare -F | sed -n 's/^declare -f case_//p'); do
    number=${case%%_*}
    name=$(basename "$cases/$number"-*)
    folder=$cases/$name
    [ -d "$folder" ] || { echo "without $case"; continue; }
    "case_$case"
done
exit "$failed"
