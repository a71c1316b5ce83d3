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
[ -e "$work/none" ] && complain "a refused run leaves a folder"
exit "$failed"
