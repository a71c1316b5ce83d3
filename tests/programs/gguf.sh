#!/usr/bin/env bash
# Models in GGUF files, in a build with llama.cpp: losses are llama.cpp's own, weights those of its softmax, and a capture
# read back gives the same figures. Without llama.cpp: a sentence that says what to install.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

data="${ATTNSCOPE_DATA_DIR:-$ATTNSCOPE_SOURCE/../shared/data}"
printf 'GGUF\003\0\0\0' >"$work/cut.gguf"
echo "1 2 3" >"$work/ids"
refused 2 "a model needs --text or --tokens" "$work/cut.gguf"
refused 2 "the model says how it attends" "$work/cut.gguf" --tokens "$work/ids" --causal
refused 2 "only a model reads a text" "$work/ids" --tokens "$work/ids"
refused 2 "--check must be on or off" "$work/cut.gguf" --tokens "$work/ids" --check maybe
refused 2 "--loss must be on or off" "$work/cut.gguf" --tokens "$work/ids" --loss maybe
refused 2 "--model-layers: only a model reads a text" "$work/ids" --model-layers 1
if "$program" "$work/cut.gguf" --tokens "$work/ids" 2>&1 | grep -q 'install libllama-dev'; then
    [ "$failed" -eq 0 ] || exit 1
    echo "skipped: built without llama.cpp"
    exit 77
fi
refused 1 "llama.cpp does not load it" "$work/cut.gguf" --tokens "$work/ids"
[ -d "$data/gguf" ] || { echo "skipped: no $data/gguf"; exit "$((failed ? 1 : 77))"; }

# figure <file> <key>: of the report's JSON
figure() { sed -nE "s/^ *\"$2\": ([^,]*),?\$/\1/p" "$1" | head -n 1; }
# within <a> <b> <tolerance>
within() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; exit !(d <= t && d >= -t) }'; }

# The references were made with keys and values in half precision, and quantised products differ between processors.
while IFS= read -r line; do
    model=$(sed -nE 's/.*"model": ?"([^"]*)".*/\1/p' <<<"$line")
    loss=$(sed -nE 's/.*"mean_nll": ?([0-9.]*).*/\1/p' <<<"$line")
    if [[ $model == llama_* ]]; then tolerance=0.02; else tolerance=0.001; fi
    "$program" "$data/gguf/$model" --tokens "$data/gguf/ids.txt" --json "$work/model.json" >"$work/text" || complain "$model: fails"
    within "$(figure "$work/model.json" loss)" "$loss" $tolerance ||
        complain "$model: loss $(figure "$work/model.json" loss), llama.cpp says $loss"
    within "$(figure "$work/model.json" max_weight_difference)" 0 1e-5 ||
        complain "$model: weights differ by $(figure "$work/model.json" max_weight_difference)"
    grep -q '^No sharp statement is violated.$' "$work/text" || complain "$model: a statement is violated"
    "$ATTNSCOPE_BIN/attnscope-capture" "$data/gguf/$model" --tokens "$data/gguf/ids.txt" --out "$work/c.safetensors" >"$work/out" ||
        complain "$model: capture fails"
    mkdir -p "$work/a" "$work/b"
    "$program" "$data/gguf/$model" --tokens "$data/gguf/ids.txt" --check off --csv "$work/a" >/dev/null &&
        "$program" "$work/c.safetensors" --csv "$work/b" >/dev/null || complain "$model: the report fails"
    diff -q "$work/a" "$work/b" >/dev/null || complain "$model: a capture gives other figures than the model"
    printf '%-18s loss %s, llama.cpp %.4f; weights differ by %s\n' "$model" "$(figure "$work/model.json" loss)" "$loss" \
        "$(figure "$work/model.json" max_weight_difference)"
done <"$data/gguf/reference.jsonl"

# One model three ways: our own pass on a folder, llama.cpp on f32 and on 8 bits.
stories="$data/stories260k"
if [ -e "$stories/model.safetensors" ]; then
    for way in "$stories 0.4681 0.0005" "$stories/stories260k_f32.gguf 0.4681 0.0005" \
        "$stories/stories260k_q8_0.gguf 0.4703 0.02"; do
        read -r input loss tolerance <<<"$way"
        "$program" "$input" --tokens "$stories/tokens.txt" --length 192 --json "$work/j.json" --html "$work/page.html" >/dev/null ||
            complain "$input: fails"
        [[ $input != *.gguf ]] || grep -qE '"tokens":\[("[^"]*",){191}"[^"]*"\]' "$work/page.html" || complain "$input: tokens have no text"
        within "$(figure "$work/j.json" loss)" "$loss" "$tolerance" || complain "$input: loss $(figure "$work/j.json" loss), expected $loss"
        printf '%-18s loss %s\n' "${input##*/}" "$(figure "$work/j.json" loss)"
    done
fi
# The residual stream, by our own pass and by llama.cpp.
if [ -e "$stories/model.safetensors" ] && command -v python3 >/dev/null; then
    for way in "$stories" "$stories/stories260k_f32.gguf"; do
        "$ATTNSCOPE_BIN/attnscope-capture" "$way" --tokens "$stories/tokens.txt" --length 192 --hidden \
            --out "$work/hidden-$(basename "$way").safetensors" >/dev/null 2>&1 || complain "$way: --hidden fails"
    done
    python3 - "$work"/hidden-*.safetensors <<'END' || complain "hidden states of stories260k differ"
import array, json, struct, sys
def hidden(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<Q", data)
    about = json.loads(data[8:8 + length])["hidden"]
    begin, end = about["data_offsets"]
    return about["shape"], array.array("f", data[8 + length + begin:8 + length + end])
(shape, a), (other, b) = map(hidden, sys.argv[1:3])
difference = max(abs(x - y) for x, y in zip(a, b))
print(f"hidden states      {shape}, differ by {difference:.2g}")
sys.exit(not (shape == other == [6, 192, 64] and difference < 1e-4))
END
fi

# Attention of uncommon forms: model, options, what the report says of it.
while IFS='|' read -r family options says; do
    command -v python3 >/dev/null || { echo "no python3: models of uncommon forms are not tested"; break; }
    model="$work/$family.gguf"
    python3 "$ATTNSCOPE_SOURCE/tests/models/tiny_gguf.py" "$family" "$model" || { complain "$family: not written"; continue; }
    # shellcheck disable=SC2086
    "$program" "$model" --tokens "$data/gguf/ids.txt" $options --json "$work/model.json" >"$work/text" || complain "$family: fails"
    grep -qF -- "$says" "$work/text" || complain "$family: the report does not say \"$says\""
    within "$(figure "$work/model.json" max_weight_difference)" 0 1e-5 ||
        complain "$family: weights differ by $(figure "$work/model.json" max_weight_difference)"
    # shellcheck disable=SC2086
    "$ATTNSCOPE_BIN/attnscope-capture" "$model" --tokens "$data/gguf/ids.txt" $options --out "$work/c.safetensors" >"$work/out" ||
        complain "$family: capture fails"
    rm -rf "$work/a" "$work/b" && mkdir "$work/a" "$work/b"
    # shellcheck disable=SC2086
    "$program" "$model" --tokens "$data/gguf/ids.txt" $options --check off --csv "$work/a" >/dev/null &&
        "$program" "$work/c.safetensors" --csv "$work/b" >/dev/null || complain "$family: the report fails"
    diff -rq "$work/a" "$work/b" >/dev/null || complain "$family: a capture gives other figures than the model"
    printf '%-18s loss %s; weights differ by %s %s\n' "$family" "$(figure "$work/model.json" loss)" \
        "$(figure "$work/model.json" max_weight_difference)" "$options"
done <<'END'
bloom||bias: masks and position biases of the model, added to the logits
deepseek2||latent attention: queries and keys after absorption
lfm2||layers with attention, numbered from 0 here, are 1, 3 of the model
lfm2|--model-layers 3|layers that were chosen, numbered from 0 here, are 3 of the model
deci|--model-layers 0|4 heads on 2 key heads
deci|--model-layers 3|numbered from 0 here, are 3 of the model
bert||no loss: queries see keys behind them
END
if [ -e "$work/deci.gguf" ]; then
    [ "$(figure "$work/model.json" loss)" = null ] || complain "bert: a loss of tokens that were seen"
    python3 "$ATTNSCOPE_SOURCE/tests/models/tiny_gguf.py" mamba "$work/mamba.gguf"
    ids=(--tokens "$data/gguf/ids.txt")
    refused 1 "layer 0: 4 heads on 2 of width 32 and 32; layer 2: 4 heads on 1 of width 32 and 32; layer 3: 2 heads on 2" \
        "$work/deci.gguf" "${ids[@]}"
    refused 2 "layer 1 has no attention; those of the model that have are 0,2,3" "$work/deci.gguf" "${ids[@]}" --model-layers 1-3
    refused 2 "--model-layers: expected numbers such as 0,3-5" "$work/deci.gguf" "${ids[@]}" --model-layers all
    refused 1 "no layer has softmax attention" "$work/mamba.gguf" "${ids[@]}"
    for family in bloom deepseek2 lfm2; do
        "$ATTNSCOPE_BIN/attnscope-capture" "$work/$family.gguf" "${ids[@]}" --hidden --out "$work/c.safetensors" >/dev/null 2>&1 ||
            complain "$family: --hidden fails"
    done
    program="$ATTNSCOPE_BIN/attnscope-capture"
    refused 1 "no node that tells the residual stream that enters layer 1" "$work/bert.gguf" "${ids[@]}" --hidden --out "$work/c"
fi
[ -z "$(find "$work" -name '*.partial*')" ] || complain "it leaves files behind"
exit "$failed"
