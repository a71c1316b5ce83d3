#!/usr/bin/env bash
# Models in GGUF files, in a build with llama.cpp: losses are llama.cpp's own, weights those of its softmax, and a capture
# read back gives the same figures and the same plans; the experiments of the paper run. Without llama.cpp: a sentence that
# says what to install.
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

# plans_of <file>: of a plan's JSON what is planned, without what tells where the heads come from.
plans_of() { sed -n '/^ "heads": /,$p' "$1"; }

# same_plan <name> <model> <argument>...: attnscope-plan on a model plans as it does on the capture $work/c.safetensors.
same_plan() {
    local name=$1
    shift
    "$ATTNSCOPE_BIN/attnscope-plan" "$@" --rows 16 --json "$work/plan.json" >"$work/text" 2>&1 || complain "$name: attnscope-plan fails"
    "$ATTNSCOPE_BIN/attnscope-plan" "$work/c.safetensors" --rows 16 --json "$work/other.json" >/dev/null 2>&1 ||
        complain "$name: attnscope-plan fails on the capture"
    cmp -s <(plans_of "$work/plan.json") <(plans_of "$work/other.json") || complain "$name: another plan than that of its capture"
    plans_of "$work/plan.json" | grep -q '"inverse_temperature"' || complain "$name: no temperature is planned"
}

# the_paper <name> <loss> <tolerance> <model> <argument>...: the experiments run on a model, which has that loss.
the_paper() {
    local name=$1 loss=$2 tolerance=$3
    shift 3
    "$ATTNSCOPE_BIN/attnscope-paper" "$@" --quick --no-pictures --out "$work/paper" >"$work/text" 2>&1 ||
        complain "$name: attnscope-paper fails: $(tail -n 1 "$work/text")"
    within "$(figure "$work/paper/results.json" loss_nats)" "$loss" "$tolerance" || complain "$name: another loss in the experiments"
    grep -q '^No sharp statement is violated.$' "$work/text" || complain "$name: the experiments violate a statement"
}

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
    same_plan "$model" "$data/gguf/$model" --tokens "$data/gguf/ids.txt"
    [[ $model == llama_* ]] || the_paper "$model" "$loss" 0.001 "$data/gguf/$model" --tokens "$data/gguf/ids.txt"
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
# Queries, keys, values and the residual stream, by our own pass and by llama.cpp; and the experiments.
if [ -e "$stories/model.safetensors" ] && command -v python3 >/dev/null; then
    for way in "$stories" "$stories/stories260k_f32.gguf"; do
        "$ATTNSCOPE_BIN/attnscope-capture" "$way" --tokens "$stories/tokens.txt" --length 192 --hidden \
            --out "$work/both-$(basename "$way").safetensors" >/dev/null 2>&1 || complain "$way: --hidden fails"
        the_paper "$way" 0.4681 0.0005 "$way" --tokens "$stories/tokens.txt" --length 192
        cp "$work/paper/heads.csv" "$work/both-$(basename "$way").csv"
    done
    python3 - "$work/both-stories260k" "$work/both-stories260k_f32.gguf" <<'END' || complain "stories260k differs between our own pass and llama.cpp"
import array, csv, json, struct, sys
def capture(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    def tensor(name):
        begin, end = header[name]["data_offsets"]
        return header[name]["shape"], array.array("f", data[8 + length + begin:8 + length + end])
    return {name: tensor(name) for name in ("q", "k", "v", "hidden")}
own, other = (capture(path + ".safetensors") for path in sys.argv[1:])
largest = {}
for name in "qkv":
    # Our capture repeats the keys of a group. llama.cpp turns channels 2i and 2i + 1 of q and k where the folder has i and d/2 + i.
    ((layers, heads, n, d), x), ((_, groups, _, _), y) = own[name], other[name]
    place = [2 * i if i < d // 2 else 2 * i - d + 1 for i in range(d)] if name != "v" else range(d)
    largest[name] = max(abs(x[((l * heads + h) * n + t) * d + i] - y[((l * groups + h * groups // heads) * n + t) * d + place[i]])
                        for l in range(layers) for h in range(heads) for t in range(n) for i in range(d))
assert own["hidden"][0] == other["hidden"][0] == [6, 192, 64]
largest["hidden"] = max(abs(x - y) for x, y in zip(own["hidden"][1], other["hidden"][1]))
print("both ways          " + ", ".join(f"{name} differ by {x:.2g}" for name, x in largest.items()))
rows = [list(csv.DictReader(open(path + ".csv"))) for path in sys.argv[1:]]
assert len(rows[0]) == len(rows[1]) == 40
figures = [name for name in rows[0][0] if name in ("participation_ratio", "sink_mass", "spectral", "entropy_nats", "max_weight", "distance_5")]
assert len(figures) == 6
apart = max(abs(float(a[name]) - float(b[name])) / max(1, abs(float(a[name]))) for a, b in zip(*rows) for name in figures)
print(f"                   figures of the experiments by {apart:.2g}")
sys.exit(not (max(largest.values()) < 1e-4 and apart < 1e-4))
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
    # shellcheck disable=SC2086
    same_plan "$family" "$model" --tokens "$data/gguf/ids.txt" $options
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
