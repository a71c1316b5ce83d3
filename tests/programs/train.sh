#!/usr/bin/env bash
# attnscope-train: learns, gives what the other programs take as a model, and goes on after an interruption as if there had
# been none.
set -u
program="$ATTNSCOPE_BIN/attnscope-train"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

cat "$ATTNSCOPE_SOURCE"/README.md "$ATTNSCOPE_SOURCE"/docs/*.md "$ATTNSCOPE_SOURCE"/LICENSE >"$work/text"
run() { "$program" --text "$work/text" --quick --batch-tokens 1024 "$@" 2>>"$work/err"; }

run --steps 120 --every 40 --out "$work/one" --threads 1 --sample 20 >"$work/out" || complain "it fails"
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
awk '/^text / { unigram = $(NF - 1) } /^loss / { loss = $2 } END { exit !(loss > 0 && loss < unigram - 0.2) }' "$work/out" ||
    complain "it does not learn: $(cat "$work/out")"
[ "$(grep -cE '^step .*  theta 0\.[0-9]{3}  ' "$work/out")" -eq 3 ] || complain "its lines do not say how balanced rows are"
[ "$(wc -l <"$work/one/loss.csv")" -eq 4 ] || complain "loss.csv has not one line for each 40 steps"

# The same with other threads, killed behind a checkpoint and resumed.
run --steps 120 --every 40 --out "$work/two" --threads 3 >/dev/null &
pid=$!
for _ in $(seq 600); do
    [ -e "$work/two/checkpoint.safetensors" ] && break
    sleep 0.05
done
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null
[ -e "$work/two/checkpoint.safetensors" ] || complain "no checkpoint is written"
if [ ! -e "$work/two/model.safetensors" ]; then
    run --steps 120 --every 40 --out "$work/two" --resume >"$work/out" || complain "it does not resume"
    grep -Eq '^steps .* from step (40|80)$' "$work/out" || complain "it does not say from where it goes on"
fi
for file in model.safetensors loss.csv config.json vocab.json; do
    cmp -s "$work/one/$file" "$work/two/$file" || complain "an interrupted run ends with another $file"
done

# Its folder is a model of the other programs, in 16 bits too.
head -c 300 "$work/text" >"$work/short"
"$ATTNSCOPE_BIN/attnscope-capture" "$work/one" --text "$work/short" >"$work/out" 2>&1 || complain "attnscope-capture refuses it"
grep -q '^loss ' "$work/out" || complain "attnscope-capture gives no loss"
run --steps 3 --half --out "$work/half" --normalizer entmax:1.5 --temperature 0.5 >"$work/out" || complain "it fails with entmax"
grep -q 'entmax:1.5 at temperature 0.5$' "$work/out" || complain "it does not name the normaliser"
[ "$(wc -c <"$work/half/model.safetensors")" -lt 260000 ] || complain "16 bits are not half"
"$ATTNSCOPE_BIN/attnscope-capture" "$work/half" --text "$work/short" >/dev/null 2>&1 || complain "16 bits are refused"

base=(--text "$work/text" --quick)
refused 1 "--resume goes on from it" "${base[@]}" --out "$work/one"
refused 1 "seed: expected 2 as in this run, found 1" "${base[@]}" --out "$work/one" --steps 120 --batch-tokens 1024 --seed 2 --resume
refused 1 "the text: expected" --text "$work/short" --out "$work/none" --quick
refused 2 "--normalizer" "${base[@]}" --out "$work/none" --normalizer hardmax
refused 2 "--temperature must be a number > 0, got 0" "${base[@]}" --out "$work/none" --temperature 0
refused 2 "--steps must be a whole number" "${base[@]}" --out "$work/none" --steps -1
refused 1 "$work/missing" --text "$work/missing" --out "$work/none" --quick
refused 1 "no checkpoint" "${base[@]}" --out "$work/none" --resume

# A checkpoint is what the run has written, or nothing.
run --steps 4 --every 2 --out "$work/good" >"$work/out" || complain "it fails"
cat >"$work/alter.py" <<'PYTHON'
import json, struct, sys
source, target, what = sys.argv[1:]
data = open(source, "rb").read()
size = struct.unpack("<Q", data[:8])[0]
header, body = json.loads(data[8:8 + size]), bytearray(data[8 + size:])
at = lambda name: header[name]["data_offsets"][0]
if what == "nan": body[at("weights/wte.weight"):at("weights/wte.weight") + 4] = struct.pack("<f", float("nan"))
if what == "bit": body[at("weights/wte.weight")] ^= 1
if what == "negative": body[at("second/wpe.weight"):at("second/wpe.weight") + 4] = struct.pack("<f", -1.0)
if what == "step_nan": body[at("state"):at("state") + 8] = struct.pack("<d", float("nan"))
if what == "step_large": body[at("state"):at("state") + 8] = struct.pack("<d", 2.0 ** 62)
if what == "step_half": body[at("state"):at("state") + 8] = struct.pack("<d", 1.5)
if what == "short": header["state"]["shape"] = [2]; header["state"]["data_offsets"][1] -= 16
if what == "larger": header["weights/wpe.weight"]["shape"][0] //= 2; header["weights/wpe.weight"]["shape"][1] *= 2
if what == "unsaid": del header["__metadata__"]["checksum"]
if what == "short": # the file shall end with its last tensor
    first, last = header["state"]["data_offsets"]
    del body[last:last + 16]
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["data_offsets"][0] > last:
            tensor["data_offsets"] = [x - 16 for x in tensor["data_offsets"]]
text = json.dumps(header).encode()
open(target, "wb").write(struct.pack("<Q", len(text)) + text + body)
PYTHON
if command -v python3 >/dev/null; then
    while read -r what part; do
        rm -rf "$work/altered" && cp -r "$work/good" "$work/altered"
        python3 "$work/alter.py" "$work/good/checkpoint.safetensors" "$work/altered/checkpoint.safetensors" "$what"
        refused 1 "$part" "${base[@]}" --batch-tokens 1024 --steps 4 --every 2 --out "$work/altered" --resume
        cmp -s "$work/good/model.safetensors" "$work/altered/model.safetensors" || complain "$what: the model is written"
    done <<'CASES'
nan weights/wte.weight: expected finite numbers, found nan
bit checksum: expected
negative second/wpe.weight: expected numbers >= 0, found -1
step_nan state: expected finite numbers, found nan
step_large state: expected step: a whole number from 0 to 4
step_half state: expected step: a whole number from 0 to 4, found 1.5
short state: expected F64 [4], found F64 [2]
larger weights/wpe.weight: expected F32 [128, 64], found F32 [64, 128]
unsaid checksum: expected
CASES
fi
run --steps 4 --every 2 --out "$work/good" --resume >/dev/null || complain "it does not resume a finished run"

# A loss that is no number ends the run and leaves the last good checkpoint.
refused 1 "a smaller --rate may help" "${base[@]}" --out "$work/wild" --rate 1e300 --steps 1 --batch-tokens 1024
[ -e "$work/wild/model.safetensors" ] || [ -e "$work/wild/checkpoint.safetensors" ] && complain "a model of NaN is written"
# With an earlier checkpoint: the run stops behind a few steps, and again when it goes on; the checkpoint stays as it is.
wild=("${base[@]}" --out "$work/wild" --rate 1e6 --steps 10 --every 1 --batch-tokens 1024)
refused 1 "a smaller --rate may help; the checkpoint before it is in $work/wild" "${wild[@]}"
cp "$work/wild/checkpoint.safetensors" "$work/kept.safetensors" || complain "the earlier checkpoint is gone"
refused 1 "a smaller --rate may help; the checkpoint before it is in $work/wild" "${wild[@]}" --resume
grep -Eq '^steps .* from step [1-9]$' "$work/out" || complain "it does not go on from the good checkpoint: $(cat "$work/out")"
cmp -s "$work/wild/checkpoint.safetensors" "$work/kept.safetensors" || complain "a good checkpoint is overwritten"
[ "$(ls -A "$work/wild")" = checkpoint.safetensors ] || complain "a run without an end leaves: $(ls -A "$work/wild")"
[ -e "$work/none" ] && complain "a refused run leaves a folder"
exit "$failed"
