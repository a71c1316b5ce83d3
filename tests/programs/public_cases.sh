#!/usr/bin/env bash
# Situations from public reports of peer programs, one function a case, with the right values that stand beside the inputs
# (numpy in float64, token ids from @huggingface/tokenizers).
set -u
program="$ATTNSCOPE_BIN/attnscope-capture"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
cases="$ATTNSCOPE_SOURCE/../shared/cases/public"
[ -d "$cases" ] || { echo "skipped: there is no $cases" >&2; exit 77; }

# capture <folder> <ids> [argument]...: runs it, output in $work/out and $work/err.
capture() { "$ATTNSCOPE_BIN/attnscope-capture" "$cases/$1" --tokens "$cases/$2" "${@:3}" >"$work/out" 2>"$work/err"; }
# loss_is <case> <value of four decimals>
loss_is() { grep -q "^loss      $2 nats" "$work/out" || complain "$1: loss $2 expected: $(cat "$work/out" "$work/err")"; }
# one_line <case> <part>: that is what standard error holds.
one_line() {
    [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$2" "$work/err" || complain "$1: message: $(cat "$work/err")"
}
# says <key> <value> <file>: metadata of a safetensors file.
says() { head -c 100000 "$3" | grep -aqF "\"$1\":\"$2\"" || complain "$(basename "$3"): metadata $1 are not $2"; }

case_01_capture_keeps_the_scale() {
    capture 01-capture-loses-scale 01-capture-loses-scale/ids --out "$work/01.safetensors" || complain "01 fails"
    loss_is 01 9.7170
    # 1/sqrt(8) times 1, 1/2, 1/3
    head -c 100000 "$work/01.safetensors" | grep -aqF '"scale":"0.35355339059327373,0.17677669529663687,0.11785113019775' ||
        complain "01: scales of the layers"
    says window 0 "$work/01.safetensors"
    says causal true "$work/01.safetensors"
    says normalizer softmax "$work/01.safetensors"
    says temperature 1 "$work/01.safetensors"
}
case_03_capture_keeps_the_window() {
    capture 03-capture-loses-window 03-capture-loses-window/ids --out "$work/03.safetensors" || complain "03 fails"
    loss_is 03 4.7772
    says window 6 "$work/03.safetensors"
    says scale 0.4082482904638631 "$work/03.safetensors"
}
case_05_index_decides() {
    capture 05-index-decides 05-index-decides/ids || complain "05 fails"
    loss_is 05 5.7050
    one_line 05 "model.layers.0.self_attn.q_proj.weight in model-00001-of-00002.safetensors"
}
case_06_empty_weight_map() {
    capture 06-empty-weight-map 06-empty-weight-map/ids && complain "06: not refused"
    one_line 06 "model.safetensors.index.json: weight_map: expected tensors, found none"
}
case_07_embedding_shape() {
    capture 07-embedding-shape/wider 07-embedding-shape/ids && complain "07: not refused"
    one_line 07 "model.embed_tokens.weight: expected shape [40, 16] by config.json, found [40, 18]"
    capture 07-embedding-shape/transposed 07-embedding-shape/ids && complain "07: not refused"
    one_line 07 "expected shape [40, 16] by config.json, found [16, 40]"
}
case_09_unused_tensors() {
    capture 09-unused-bias-tensors 09-unused-bias-tensors/ids || complain "09 fails"
    loss_is 09 5.7481
    one_line 09 "tensors that are not used: "
    for layer in 0 1; do
        for name in k o q v; do
            grep -qF "model.layers.$layer.self_attn.${name}_proj.bias" "$work/err" || complain "09: $layer $name is not named"
        done
    done
}
case_11_tokenizer_json() {
    local folder="$cases/11-tokenizer-json-ignored" text
    [ "$("$ATTNSCOPE_BIN/attnscope-tokenize" "$folder/gpt2" --text "$folder/text0")" = "98 257 33 260 53 33 99" ] ||
        complain "11: ids of text0"
    [ "$("$ATTNSCOPE_BIN/attnscope-tokenize" "$folder/gpt2" --text "$folder/text1")" = \
        "61 125 106 110 96 116 117 98 115 117 125 63 263 264 61 125 106 110 96 102 111 101 125 63" ] || complain "11: ids of text1"
    for text in text0 text1; do # splits digits: not GPT-2's
        "$ATTNSCOPE_BIN/attnscope-tokenize" "$folder/smol" --text "$folder/$text" >"$work/out" 2>"$work/err" && complain "11: not refused"
        one_line 11 "smol/tokenizer.json: pre_tokenizer: expected ByteLevel without a prefix space"
    done
}
case_18_infinity_in_config() {
    capture 18-infinity-in-config 18-infinity-in-config/ids && complain "18: not refused"
    one_line 18 "config.json: at byte 272: Infinity"
}
case_23_tokenizer_json_alone() {
    local folder="$cases/23-tokenizer-json-only"
    [ "$("$ATTNSCOPE_BIN/attnscope-tokenize" "$folder" --text "$folder/text")" = "263 264 33 260 53" ] || complain "23: ids"
}

for name in $(compgen -A function case_); do "$name"; done
exit "$failed"
