#!/usr/bin/env bash
# attnscope-capture: a file that attnscope-report reads, the same for any number of threads, one line for what is wrong.
set -u
program="$ATTNSCOPE_BIN/attnscope-capture"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

cat >"$work/config.json" <<'JSON'
{"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 100}
JSON
seq 0 79 >"$work/ids"
figures() { sed '/^time/d; /^written/d'; }
run() { "$program" --random-weights "$work/config.json" --tokens "$work/ids" "$@" 2>>"$work/err"; }
run --threads 1 --weights --hidden --out "$work/one.safetensors" | figures >"$work/one" || complain "it fails"
run --threads 3 --weights --hidden --out "$work/three.safetensors" | figures >"$work/three" || complain "it fails"
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
cmp -s "$work/one.safetensors" "$work/three.safetensors" && cmp -s "$work/one" "$work/three" ||
    complain "threads change the results"
grep -q '^model     random weights, seed 1 (not a trained model)$' "$work/one" || complain "it does not say that the model is random"
grep -q ', 64 tokens of 80: the rest is left out$' "$work/one" || complain "it does not say that the text is cut"
"$ATTNSCOPE_BIN/attnscope-report" "$work/one.safetensors" >"$work/report" || complain "the report fails"
grep -q '^shape        2 layers x 4 heads, 64 queries, 64 keys, width 8$' "$work/report" &&
    grep -q ', causal$' "$work/report" || complain "the report reads another shape"
grep -Eq '^weights      stored weights differ from those of q and k by at most [0-9.]+e-0[678]$' "$work/report" ||
    complain "weights of q and k differ from those written: $(grep '^weights' "$work/report")"
run --normalizer entmax:1.5 --temperature 0.5 >"$work/out" || complain "it fails with another normaliser"
[ "$(grep -c '^loss ' "$work/out")" -eq 2 ] && grep -q 'with entmax:1.5 at temperature 0.5$' "$work/out" ||
    complain "it does not compare losses: $(cat "$work/out")"

run --normalizer model >"$work/out" || complain "it fails with the model's own normaliser by name"
[ "$(grep -c '^loss ' "$work/out")" -eq 1 ] || complain "the model's own normaliser is compared with itself: $(cat "$work/out")"

random=(--random-weights "$work/config.json")
refused 2 "MODEL or --random-weights" --tokens "$work/ids"
refused 2 "--text or --tokens" "${random[@]}"
refused 1 "$work/none" "$work/none" --tokens "$work/ids"
refused 1 "$work/none" "${random[@]}" --tokens "$work/none"
refused 2 "the context of the model is 64, got 65" "${random[@]}" --tokens "$work/ids" --length 65
echo "1 2 3" >"$work/few"
refused 2 "has 3 tokens, got 4" "${random[@]}" --tokens "$work/few" --length 4
refused 2 "--length must be" "${random[@]}" --tokens "$work/few" --length 0
echo "1 100" >"$work/far"
refused 1 "token 1: expected an id from 0 to 99, found 100" "${random[@]}" --tokens "$work/far"
: >"$work/empty"
refused 1 "expected tokens, found none" "${random[@]}" --tokens "$work/empty"
refused 2 "--temperature" "${random[@]}" --tokens "$work/few" --temperature 0
refused 2 "--normalizer" "${random[@]}" --tokens "$work/few" --normalizer hardmax
refused 2 "--tokenizer" "${random[@]}" --text "$work/few"
[ -z "$(find "$work" -name '*.partial*')" ] || complain "it leaves files behind"

data="${ATTNSCOPE_DATA_DIR:-$ATTNSCOPE_SOURCE/../shared/data}"
for model in tiny-gpt2 stories260k; do
    [ -e "$data/$model/model.safetensors" ] || continue
    "$program" "$data/$model" --tokens "$data/$model/tokens.txt" --weights --out "$work/f.safetensors" >"$work/out" &&
        "$ATTNSCOPE_BIN/attnscope-report" "$work/f.safetensors" | grep -q '^No sharp statement is violated.$' ||
        complain "$model: a statement is violated, or nothing comes"
    # The loss under another normaliser, by two programs; softmax in place of softmax changes nothing.
    "$program" "$data/$model" --tokens "$data/$model/tokens.txt" --normalizer entmax:1.5 --temperature 0.5 \
        --out "$work/g.safetensors" >"$work/out"
    own=$(sed -n 's/^loss  *\([0-9.]*\) .* with softmax$/\1/p' "$work/out")
    other=$(sed -n 's/^loss  *\([0-9.]*\) .* with entmax:1.5 at temperature 0.5$/\1/p' "$work/out")
    beside() { "$ATTNSCOPE_BIN/attnscope-report" "$data/$model" --tokens "$data/$model/tokens.txt" --parts statistics "$@" | grep '^loss '; }
    [ "$(beside --temperature 0.5 --beside entmax:1.5)" = "loss         $own nats a token, $other with entmax:1.5 in every layer" ] ||
        complain "$model: the loss beside is not $other: $(beside --temperature 0.5 --beside entmax:1.5)"
    [ "$(beside --beside softmax)" = "loss         $own nats a token, $own with softmax in every layer" ] ||
        complain "$model: softmax beside softmax loses something else: $(beside --beside softmax)"
done
exit "$failed"
