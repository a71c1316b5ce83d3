#!/usr/bin/env bash
# Hostile files, names and outputs, under limits of memory and time: one line that names the file and status 1 or 2,
# or figures.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
cd "$work" || exit 1
command -v python3 >/dev/null || { echo "skipped: no python3" >&2; exit 77; }

# hostile <program> <status> <part of the message> <argument>...: `refused` within 20 s and `memory` KiB.
memory=2097152
hostile() {
    local name=$1 status=$2 part=$3 found=0
    shift 3
    (
        ulimit -v "$memory"
        exec timeout -s KILL 20 "$ATTNSCOPE_BIN/attnscope-$name" "$@"
    ) >out 2>err </dev/null || found=$?
    [ "$found" -eq "$status" ] || complain "$name: status $found for $*"
    [ "$(wc -l <err)" -eq 1 ] && [ "$(wc -c <err)" -lt 4096 ] && grep -qF -- "$part" err ||
        complain "$name: message for $*: $(head -c 500 err)"
}

python3 - <<'PY'
import json, os, struct
def file(path, header, data=b""):
    text = json.dumps(header).encode()
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)
def tensor(shape, begin, end): return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
numbers = struct.pack("<16f", *[i / 8 for i in range(16)])
file("good.safetensors", {"q": tensor([1, 2, 4], 0, 32), "k": tensor([1, 2, 4], 32, 64)}, numbers)
file(b"n\xff.safetensors", {"q": tensor([1, 2, 4], 0, 32), "k": tensor([1, 2, 4], 32, 64)}, numbers)
config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 4, "n_positions": 8, "vocab_size": 256}
names, extra = {}, 256
for b in range(256):
    printable = 33 <= b <= 126 or 161 <= b <= 172 or b >= 174
    names[chr(b) if printable else chr(extra)] = b
    extra += not printable
def model(name, config_text=None, vocabulary=None, index=None):
    os.mkdir(name)
    open(name + "/config.json", "w").write(config_text or json.dumps(config))
    open(name + "/vocab.json", "w").write(vocabulary or json.dumps(names))
    open(name + "/merges.txt", "w").close()
    if index: open(name + "/model.safetensors.index.json", "w").write(index)
deep = "[" * 200000
model("deep-config", config_text=deep)
model("deep-index", index=deep)
model("deep-vocabulary", vocabulary=deep)
model("large-number", vocabulary="8888e888888")
model("large-number-config", config_text='{"n_embd": 8888e888888}')
model("infinity", config_text='{"n_embd": Infinity}')
model("long-type", config_text=json.dumps({"model_type": "x" * 5000000}))
model("empty-map", index='{"weight_map":{}}')
model("size", config_text=json.dumps(config | {"n_embd": 2**62}))
# Headers of 75 MB: tensors that the file does not hold, keys without end.
many = ",".join('"%x":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}' % (i, i, i + 1) for i in range(1200000))
keys = ",".join('"%x":""' % i for i in range(6500000))
for path, text in ("many.safetensors", "{" + many + "}"), ("keys.safetensors", '{"__metadata__":{' + keys + "}}"):
    open(path, "wb").write(struct.pack("<Q", len(text)) + text.encode())
open("text", "w").write("a b")
open("pickle.pt", "wb").write(b"\x80\x02}q\x00.")
PY

# ---- readers
for deep in deep-config:config.json deep-index:model.safetensors.index.json; do
    hostile capture 1 "${deep#*:}: at byte 65: " "${deep%:*}" --text text
done
hostile tokenize 1 'vocab.json: at byte 65: ' deep-vocabulary --text text
hostile tokenize 1 'vocab.json: at byte 0: number overflow' large-number --text text
hostile capture 1 'config.json: at byte 11: number overflow' large-number-config --text text
hostile capture 1 'config.json: at byte 11: Infinity' infinity --text text
hostile capture 1 'config.json' long-type --text text
hostile capture 1 'empty-map' empty-map --text text
hostile capture 1 'config.json' size --text text
hostile report 1 'pickle.pt' pickle.pt
memory=409600
hostile report 1 "many.safetensors: at byte 60: tensor '0' ends at byte 1 of the data" many.safetensors
hostile report 1 'the metadata hold more than 1000000 keys' keys.safetensors
memory=2097152
rm many.safetensors keys.safetensors
mkfifo pipe
for special in pipe /dev/zero .; do
    hostile tokenize 1 "$special: at byte 0: is " size --text "$special"
    hostile report 1 "$special: at byte 0: is " "$special"
done

# ---- numbers on the command line
for option in --layers --heads --select; do
    hostile report 2 "$option" good.safetensors "$option" 0-9223372036854775807
    hostile report 2 "$option" good.safetensors "$option" "$(printf '0-999999,%.0s' $(seq 100))1"
done
hostile report 2 'no layer' good.safetensors --layers 9223372036854775807

# ---- outputs
cp good.safetensors kept.safetensors
for name in report plan; do
    hostile "$name" 2 'is an input' good.safetensors --json good.safetensors
    ln -sf good.safetensors alias
    hostile "$name" 2 'is an input' good.safetensors --json alias
done
hostile report 1 'size: is a folder' good.safetensors --json size
hostile report 2 'only one of them may be' good.safetensors --csv size --json size/../size/heads.csv
hostile length-scaling 2 'only one of them may be' --csv new --svg ./new
hostile length-scaling 2 'only one of them may be' --csv - --svg -
cmp -s good.safetensors kept.safetensors || complain "an input is overwritten"

# Every file and folder that a model, its text and its tokenizer are read from.
mkdir link-folder kept
cp -r size model
cp good.safetensors model/model.safetensors
ln -s "$PWD/model" link-folder/model
printf '1 2' >ids
cp -r model text ids kept
for file in model/config.json model/model.safetensors link-folder/model/vocab.json text; do
    hostile capture 2 "--out $file is an input" model --text text --out "$file"
    hostile capture 2 "--out $file is an input" link-folder/model --text text --tokenizer model --out "$file"
done
hostile capture 2 '--out ids is an input' model --tokens ids --out ids
hostile capture 2 '--out model is an input' model --tokens ids --out model
hostile capture 2 'is an input' --random-weights model/config.json --tokens ids --out model/config.json
for folder in model link-folder/model model/../model; do
    hostile paper 2 "--out $folder is an input" model --text text --no-pictures --out "$folder"
    hostile paper 2 "--out $folder is an input" --random-weights gpt2 --tokenizer model --text text --no-pictures --out "$folder"
done
mkdir results
for name in results.json report.html means.csv findings.csv; do
    cp text "results/$name"
    hostile paper 2 "--out results/$name is an input" model --text "results/$name" --no-pictures --out results
    ln -f "results/$name" text-again
    hostile paper 2 "--out results/$name is an input" model --text text-again --no-pictures --out results
done
hostile paper 1 'is no folder' model --text text --no-pictures --out ids
for name in config.json vocab.json checkpoint.safetensors loss.csv; do
    cp text "results/$name"
    hostile train 2 "--out results/$name is an input" --text "results/$name" --out results --quick
done
cp model/config.json results
hostile train 2 "--out results/config.json is an input" --config results/config.json --text text --out results
hostile train 1 'is no folder' --text text --out ids --quick
hostile training-temperature 1 'is no folder' --quick --out ids
for file in model text ids; do diff -r "$file" "kept/$file" >/dev/null || complain "$file is overwritten"; done
mkdir tables
(
    ulimit -f 1
    exec "$program" good.safetensors --rows --csv tables
) >out 2>err && complain "a limit of size goes unnoticed"
grep -q 'tables/.*: cannot be written whole: File too large; written before: ' err || complain "the reason is missing: $(cat err)"
[ "$(wc -l <err)" -eq 1 ] || complain "not one line: $(cat err)"
[ -z "$(find . -name '.attnscope-*')" ] || complain "partial files are left"

# ---- the end by a signal, on a file system without unnamed files: a shim refuses O_TMPFILE and waits before the name is given
if command -v cc >/dev/null && cat >shim.c <<'C' && cc -shared -fPIC -o shim.so shim.c -ldl 2>shim.log; then
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <unistd.h>
static int opened(const char* name, const char* path, int flags, int mode) {
    int (*next)(const char*, int, ...) = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, name);
    if ((flags & O_TMPFILE) == O_TMPFILE) return errno = EOPNOTSUPP, -1;
    return next(path, flags, mode);
}
int open(const char* path, int flags, ...) {
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);
    return opened("open", path, flags, mode);
}
int open64(const char* path, int flags, ...) {
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest);
    return opened("open64", path, flags, mode);
}
int rename(const char* from, const char* to) { for (;;) pause(); }
C
    for signal in TERM INT HUP; do
        mkdir ended
        (cd ended && trap - INT && LD_PRELOAD="$work/shim.so" exec "$program" ../good.safetensors --json out.json) >out 2>err &
        pid=$!
        for _ in $(seq 200); do
            [ -n "$(find ended -name '.attnscope-*')" ] && break
            sleep 0.05
        done
        [ -n "$(find ended -name '.attnscope-*')" ] || complain "$signal: no file is being written: $(cat err)"
        kill -s "$signal" "$pid"
        wait "$pid" 2>/dev/null
        [ $? -eq $((128 + $(kill -l "$signal"))) ] || complain "$signal does not end it"
        [ -z "$(find ended -type f)" ] || complain "$signal leaves a partial file"
        rm -r ended
    done
else
    echo "no C compiler: the end by a signal is not checked"
fi

# ---- names: one line without control characters, nothing cut
clean() { ! LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f\x7f]' "$@" || complain "control characters: $(cat -v "$@" | head -c 300)"; }
name=$(printf 'n\033[31m\nx')
cp good.safetensors "$name"
mkdir "$name.d" && cp text "$name.d/$name"
for program_of in report plan long-context; do
    "$ATTNSCOPE_BIN/attnscope-$program_of" "$name" >out 2>err || complain "$program_of fails: $(cat err)"
    clean out err
    grep -qF 'n\x1b[31m\x0ax' out || complain "$program_of does not name its input"
done
cat >small.json <<'JSON'
{"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 8, "vocab_size": 256}
JSON
cp small.json "$name.json"
cp ids "$name.ids"
"$ATTNSCOPE_BIN/attnscope-capture" --random-weights "$name.json" --tokens "$name.ids" --out "$name.out" >out 2>err || complain "capture fails: $(cat err)"
clean out err
[ "$(grep -cF 'n\x1b[31m\x0ax' out)" -eq 2 ] || complain "capture does not say what it reads and writes: $(cat out)"
"$ATTNSCOPE_BIN/attnscope-paper" --random-weights "$name.json" --tokens "$name.ids" --no-pictures --out "$name.d" >out 2>err || complain "paper fails: $(cat err)"
clean out err
head -c 3000 /dev/zero | tr '\0' 'ab' >"$name.text"
"$ATTNSCOPE_BIN/attnscope-train" --text "$name.text" --config small.json --batch-tokens 8 --steps 1 --out "$name.model" >out 2>err || complain "train fails: $(cat err)"
clean out err
[ "$(grep -cF 'n\x1b[31m\x0ax' out)" -eq 2 ] || complain "train does not say what it reads and writes: $(cat out)"

mkdir zero zero-index
echo '{"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 8, "vocab_size": 256, "a\u0000b": 1}' >zero/config.json
hostile capture 1 'zero: expected model.safetensors' zero --tokens ids
echo '{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
"max_position_embeddings": 8, "vocab_size": 256, "rope_scaling": {"rope_type": "linear", "factor": 2, "a\u0000b": [1]}}' >zero.json
hostile capture 1 'rope_scaling: a\x00b: expected no such key' --random-weights zero.json --tokens ids
cp small.json zero-index/config.json
echo '{"weight_map": {"a\u0000b": 3}}' >zero-index/model.safetensors.index.json
hostile capture 1 'weight_map: a\x00b: expected the name of a file in this folder, found 3' zero-index --tokens ids
python3 - <<'PY'
import struct
text = b'{"__metadata__":{"scale":"1\\u0000x"},"q":{"dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]},"k":{"dtype":"F32","shape":[1,1,1],"data_offsets":[4,8]}}'
open("zero.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + bytes(8))
PY
hostile report 1 'got "1\x00x"' zero.safetensors

# Of a name that is no UTF-8 the JSON says what JSON can say; messages escape it.
name=$(printf 'n\377.safetensors')
"$program" "$name" --json out.json >out 2>err && grep -qF $'"n\xef\xbf\xbd.safetensors"' out.json || complain "a name that is no UTF-8: $(cat err)"
python3 -c 'import json; json.load(open("out.json", encoding="utf-8"))' || complain "the JSON is none"
hostile report 1 'm\xfe: at byte 0: cannot be opened' "$(printf 'm\376')"
exit "$failed"
