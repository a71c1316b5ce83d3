#!/usr/bin/env bash
# fetch_model.sh against a server of its own: whole and resumed downloads, wrong hashes and sizes, no server at all.
set -u
export LC_ALL=C
command -v curl >/dev/null && command -v python3 >/dev/null || { echo "skipped: no curl or no python3" >&2; exit 77; }
script="$ATTNSCOPE_SOURCE/examples/fetch_model.sh"
work="$(mktemp -d)"
trap 'kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
failed=0
complain() { echo "$1"; failed=1; }

# A hub: small files with git's hash as ETag, the large one redirected and described by X-Linked-*; ranges; a folder of
# switches that make it lie.
mkdir -p "$work/hub" "$work/switch"
cat >"$work/hub.py" <<'PY'
import hashlib, http.server, os, sys

files, switch = sys.argv[1], sys.argv[2]

class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        name = os.path.basename(self.path)
        data = open(os.path.join(files, name), "rb").read()
        large = name == "model.safetensors"
        wrong = os.path.exists(os.path.join(switch, "hash"))
        size = len(data) + os.path.exists(os.path.join(switch, "size"))
        if large and "/resolve/" in self.path:
            self.send_response(302)
            self.send_header("Location", "/blobs/" + name)
            self.send_header("X-Linked-Size", str(size))
            self.send_header("X-Linked-ETag", '"%s"' % hashlib.sha256(data + b"x" * wrong).hexdigest())
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin, status = 0, 200
        if "Range" in self.headers:
            begin, status = int(self.headers["Range"].split("=")[1].split("-")[0]), 206
            open(os.path.join(switch, "resumed"), "w").close()
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (begin, len(data) - 1, len(data)))
        self.send_header("Content-Length", str(len(data) - begin))
        if not large:
            self.send_header("ETag", '"%s"' % hashlib.sha1(b"blob %d\0" % len(data) + data + b"x" * wrong).hexdigest())
        self.end_headers()
        if body:
            self.wfile.write(data[begin:])

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_address[1], flush=True)
server.serve_forever()
PY
echo '{"model_type": "gpt2"}' >"$work/hub/config.json"
echo '{}' >"$work/hub/vocab.json"
echo '#version' >"$work/hub/merges.txt"
head -c 300000 /dev/urandom >"$work/hub/model.safetensors"
python3 "$work/hub.py" "$work/hub" "$work/switch" >"$work/port" &
server=$!
for _ in $(seq 100); do [ -s "$work/port" ] && break; sleep 0.1; done
export ATTNSCOPE_HUB="http://127.0.0.1:$(cat "$work/port")"

fetch() { "$script" gpt2 "$work/$1" >"$work/out" 2>"$work/err"; }
same() { for file in config.json vocab.json merges.txt model.safetensors; do cmp -s "$work/hub/$file" "$work/$1/$file" || return 1; done; }
fetch whole || complain "it fails: $(cat "$work/err")"
same whole || complain "files differ"
[ "$(cat "$work/out")" = "$work/whole" ] || complain "it does not print the folder: $(cat "$work/out")"
[ ! -e "$work/switch/resumed" ] || complain "it resumes what it has not begun"

mkdir "$work/again"
head -c 100000 "$work/hub/model.safetensors" >"$work/again/model.safetensors.part"
fetch again && same again || complain "a resumed download fails: $(cat "$work/err")"
[ -e "$work/switch/resumed" ] || complain "it does not resume"

# refused <folder> <part of the message>: status 1, one line of it, and no file under a name that is used.
refused() {
    fetch "$1" && complain "$1: nothing is refused"
    tail -n 1 "$work/err" | grep -qF -- "$2" || complain "$1: $(cat "$work/err")"
    [ ! -s "$work/out" ] || complain "$1: it prints a folder"
}
mkdir "$work/damaged"
head -c 100000 /dev/zero >"$work/damaged/model.safetensors.part"
refused damaged "model.safetensors: expected 300000 bytes with hash"
[ ! -e "$work/damaged/model.safetensors" ] && [ ! -e "$work/damaged/model.safetensors.part" ] ||
    complain "a damaged file stays"
fetch damaged && same damaged || complain "it does not recover from a damaged part: $(cat "$work/err")"
touch "$work/switch/hash"
refused lie "config.json: expected 23 bytes with hash"
rm "$work/switch/hash"
touch "$work/switch/size"
refused short "model.safetensors: expected 300001 bytes"
rm "$work/switch/size"

kill "$server"
wait "$server" 2>/dev/null
refused alone "Place these files of https://huggingface.co/openai-community/gpt2/tree/main into $work/alone"
fetch whole || complain "what is there needs no network"
"$script" nothing >"$work/out" 2>"$work/err"
[ $? -eq 2 ] || complain "it takes any name"
exit "$failed"
