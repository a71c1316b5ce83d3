#!/usr/bin/env bash
# attnscope-laws: phases, keys as directions and depth of a model's heads, against the same figures from its weights.
set -u
program="$ATTNSCOPE_BIN/attnscope-laws"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
command -v python3 >/dev/null || { echo "no python3: skipped"; exit 77; }

model="$ATTNSCOPE_SOURCE/examples/data/shakespeare"
"$ATTNSCOPE_BIN/attnscope-capture" "$model" --text "$ATTNSCOPE_SOURCE/examples/data/prose.txt" --length 40 --hidden --weights \
    --out "$work/heads.safetensors" >/dev/null 2>&1 || complain "no capture"
"$program" "$work/heads.safetensors" >"$work/out" 2>"$work/err" || complain "it fails: $(cat "$work/err")"
cat >"$work/same.py" <<'PYTHON'
import json, math, struct, sys
data = open(sys.argv[1], "rb").read()
size = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + size])
def tensor(name):
    begin, end = header[name]["data_offsets"]
    assert header[name]["dtype"] == "F32"
    return header[name]["shape"], struct.unpack("<%df" % ((end - begin) // 4), data[8 + size + begin:8 + size + end])
(layers, heads, n, _), weights = tensor("weights")
out = open(sys.argv[2]).read()
found = [line.split() for line in out.split("layer   heads")[1].split("\n")[1:1 + layers]]
phases, half = [], 0
others = [float(i > 0) for i in range(n)]
for layer in range(layers):
    mean = [[0.0] * n for _ in range(n)]
    for head in range(heads):
        for i in range(n):
            row = weights[((layer * heads + head) * n + i) * n:][:i + 1]
            for j, p in enumerate(row): mean[i][j] += p / heads
            if i < 2: continue
            gaps = sorted(math.log(max(row) / p) for p in row)
            phases.append(sum(gaps) / i / math.log(i))
            half += max(row) >= 0.5
    others = [sum(a * b for a, b in zip(row, others)) for row in mean]
    assert abs(max(others) - float(found[layer][3])) < 1e-3 * max(others), (layer, max(others), found[layer])
phases.sort()
def said(text): return float(out.split(text)[1].split()[0])
assert int(said("rows of 3 keys or more")) == len(phases)
assert abs(said("phase, median of rows") - phases[len(phases) // 2]) < 2e-3, phases[len(phases) // 2]
share = 100 * half / len(phases)
assert abs(said("rows with p1 >= 1/2") - share) < 0.11, share
assert said("rows with the nearest gap at 1 (p1 >= 1/2)") <= share <= 100 - said("rows at most at 1 (p1 <= 1/2 whatever else)")
(_, n, width), hidden = tensor("hidden")
for layer in range(layers):
    x = [hidden[((layer + 1) * n + i) * width:][:width] for i in range(n)]
    mean = [sum(column) / n for column in zip(*x)]
    apart = math.sqrt(sum((a - m) ** 2 for row in x for a, m in zip(row, mean)) / sum(a * a for row in x for a in row))
    assert abs(apart - float(found[layer][7])) < 1e-3, (layer, apart, found[layer])
PYTHON
python3 "$work/same.py" "$work/heads.safetensors" "$work/out" || complain "its figures are not those of the weights: $(cat "$work/out")"

refused 2 "CAPTURE" --no-causal
refused 1 "$work/missing" "$work/missing"
"$program" "$work/heads.safetensors" --no-causal | grep -q "^depth: left out" || complain "depth without causal layers"
exit "$failed"
