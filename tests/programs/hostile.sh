#!/usr/bin/env bash
# Input that asks for the impossible or is not what it says: one line that names it and status 1 or 2, within 20 seconds and
# 4 GB of address space. Self-made inputs first, then those of the hostile folder if it is there.
set -u
program="$ATTNSCOPE_BIN/attnscope-capture"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
ulimit -v 4000000

# ends <program> <part of the message> <argument>...
ends() {
    program="$ATTNSCOPE_BIN/$1"
    local part=$2 found=0
    shift 2
    timeout 20 "$program" "$@" >"$work/out" 2>"$work/err" </dev/null || found=$?
    [ "$found" -eq 1 ] || [ "$found" -eq 2 ] || complain "status $found for $program $*: $(head -c 300 "$work/err")"
    [ "$(grep -vc 'warning: ' "$work/err")" -eq 1 ] && [ "$(wc -c <"$work/err")" -lt 1000 ] &&
        grep -qF -- "$part" "$work/err" || complain "message for $program $*: $(head -c 300 "$work/err")"
}
gpt2() { # gpt2 <key>: <value>, ... instead of the usual
    printf '{"model_type": "gpt2", "vocab_size": 256, "n_embd": %s, "n_head": 2, "n_layer": %s, "n_positions": %s}' \
        "${1:-32}" "${2:-2}" "${3:-64}"
}
echo "1 2 3" >"$work/ids"
head -c 20000 /dev/zero | tr '\0' 'a' >"$work/text"

# Configurations that no machine holds.
gpt2 4611686018427387904 >"$work/wide.json"
gpt2 32 2 4000000000 >"$work/long.json"
gpt2 32 1000000000 >"$work/deep.json"
gpt2 1099511627776 1099511627776 1099511627776 >"$work/huge.json"
for name in wide long huge; do
    ends attnscope-capture "$name.json" --random-weights "$work/$name.json" --tokens "$work/ids"
    ends attnscope-paper "$name.json" --random-weights "$work/$name.json" --no-pictures --out "$work/paper"
done
for name in wide long deep huge; do
    ends attnscope-train "" --text "$work/text" --config "$work/$name.json" --out "$work/model"
done
ends attnscope-train "GB of memory are needed" --text "$work/text" --config "$work/deep.json" --out "$work/model"
ends attnscope-capture "GB of memory are needed" --random-weights "$work/long.json" --tokens "$work/ids"
ends attnscope-paper "GB of memory are needed" --random-weights "$work/long.json" --no-pictures --out "$work/paper"

# Folders whose parts are not there.
mkdir "$work/empty" && gpt2 >"$work/empty/config.json"
echo '{"weight_map": {}}' >"$work/empty/model.safetensors.index.json"
ends attnscope-capture "model.safetensors.index.json: weight_map: expected tensors" "$work/empty" --tokens "$work/ids"
echo '{"weight_map": {"wte.weight": "../../etc/passwd"}}' >"$work/empty/model.safetensors.index.json"
ends attnscope-capture "the name of a file in this folder" "$work/empty" --tokens "$work/ids"

hostile="$ATTNSCOPE_SOURCE/../shared/cases/hostile"
if [ -d "$hostile" ]; then
    ends attnscope-capture "weight_map" "$hostile/empty-map" --tokens "$work/ids"
    ends attnscope-capture "expected shape [50, 16] by config.json, found [25, 32]" "$hostile/llama_bad" --tokens "$work/ids"
    ends attnscope-capture "config-embd-2p62.json: n_embd" --random-weights "$hostile/config-embd-2p62.json" --tokens "$work/ids"
    ends attnscope-train "config-embd-2p62.json: n_embd" --text "$work/text" --config "$hostile/config-embd-2p62.json" --out "$work/model"
fi
exit "$failed"
