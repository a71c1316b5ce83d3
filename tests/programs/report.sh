#!/usr/bin/env bash
# attnscope-report from a shell: exit status and one clear line for everything that is wrong, results on stdout only,
# outputs that are whole or absent, no noise without a terminal, the same bytes twice.
set -u
export LC_ALL=C
report="$ATTNSCOPE_BIN/attnscope-report"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
mkdir run
failed=0
checks=0

wrong() {
    echo "FAILED: $1"
    sed 's/^/    stdout: /' run/out | head -n 5
    sed 's/^/    stderr: /' run/err | head -n 5
    failed=1
}

run() {
    "$report" "$@" >run/out 2>run/err </dev/null
    status=$?
}

everything() { find . -path ./run -prune -o -printf '%p %s\n' | sort; }

# refused STATUS PATTERN ARGUMENT...: this exit status, one line on stderr that matches, nothing on stdout, no new file.
refused() {
    local expected="$1" pattern="$2"
    shift 2
    everything >run/before
    run "$@"
    everything >run/after
    checks=$((checks + 1))
    [ "$status" -eq "$expected" ] || wrong "$*: status $status, expected $expected"
    [ ! -s run/out ] || wrong "$*: prints results"
    [ "$(wc -l <run/err)" -eq 1 ] || wrong "$*: not one line on stderr"
    grep -q '^attnscope-report: ' run/err || wrong "$*: the line does not name the program"
    grep -Eq -- "$pattern" run/err || wrong "$*: the line does not match '$pattern'"
    cmp -s run/before run/after || wrong "$*: leaves files behind: $(diff run/before run/after)"
}

# accepted ARGUMENT...: success, results on stdout, silence on stderr.
accepted() {
    run "$@"
    checks=$((checks + 1))
    [ "$status" -eq 0 ] || wrong "$*: status $status"
    [ -s run/out ] || wrong "$*: no results"
    [ ! -s run/err ] || wrong "$*: noise on stderr"
}

# capture FILE HEADER BYTES: a safetensors file whose data are zeros.
capture() {
    local n=${#2}
    {
        # shellcheck disable=SC2059
        printf "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x\\0\\0\\0\\0' \
            $((n & 255)) $((n >> 8 & 255)) $((n >> 16 & 255)) $((n >> 24 & 255)))"
        printf '%s' "$2"
    } >"$1"
    truncate -s "+$3" "$1"
}

# ---- files that are no captures
: >empty
echo 'These are no tensors.' >text
printf '{"a":1}' >json.txt
mkdir folder
good='{"q":{"dtype":"F32","shape":[2,3,4],"data_offsets":[0,96]},"k":{"dtype":"F32","shape":[2,3,4],"data_offsets":[96,192]}}'
capture good.safetensors "$good" 192
size=$(stat -c %s good.safetensors)
head -c $((size - 1)) good.safetensors >short_data
head -c 60 good.safetensors >short_header
head -c 5 good.safetensors >short_length
refused 1 '^attnscope-report: empty: at byte 0: ' empty
refused 1 '^attnscope-report: text: at byte ' text
refused 1 '^attnscope-report: json.txt: at byte ' json.txt
refused 1 '^attnscope-report: short_data: at byte ' short_data
refused 1 '^attnscope-report: short_header: at byte ' short_header
refused 1 '^attnscope-report: short_length: at byte ' short_length
refused 1 'No such file' missing.safetensors
refused 1 'directory' folder
refused 1 'No such file' q=missing.npy k=missing.npy
refused 1 'NUMPY' q=text k=text

# ---- captures that make no sense
two() { # FILE, shape of q, its bytes, shape of k, its bytes
    capture "$1" "{\"q\":{\"dtype\":\"F32\",\"shape\":$2,\"data_offsets\":[0,$3]},\"k\":{\"dtype\":\"F32\",\"shape\":$4,\"data_offsets\":[$3,$(($3 + $5))]}}" $(($3 + $5))
}
two widths '[2,3,4]' 96 '[2,3,5]' 120
refused 1 'widths: at byte [0-9]*: tensor k: .*same width, got 4 and 5' widths
two heads '[3,3,4]' 144 '[2,3,4]' 96
refused 1 'heads: at byte [0-9]*: tensor k: .*divide' heads
two layers '[2,1,3,4]' 96 '[1,1,3,4]' 48
refused 1 'layers: at byte [0-9]*: tensor k: .*layers, got 2 and 1' layers
two no_head '[0,3,4]' 0 '[2,3,4]' 96
refused 1 'no_head: at byte [0-9]*: tensor q: is empty' no_head
two rank '[1,1,1,2,3,4]' 96 '[2,3,4]' 96
refused 1 'rank: at byte [0-9]*: tensor q: expected \[heads,n,d\].*found \[1,1,1,2,3,4\]' rank
two batches '[1,1,2,3,4]' 96 '[2,1,2,3,4]' 192
refused 1 'batches: at byte [0-9]*: tensor k: .*same batches, got 1 and 2' batches
capture alone '{"q":{"dtype":"F32","shape":[2,3,4],"data_offsets":[0,96]}}' 96
refused 1 'needs tensors q and k, or logits, or weights' alone
capture nothing '{}' 0
refused 1 'needs tensors q and k, or logits, or weights' nothing
capture integers '{"logits":{"dtype":"I32","shape":[2,3,4],"data_offsets":[0,96]}}' 96
refused 1 'integers: .*I32' integers
capture eight '{"logits":{"dtype":"F8_E4M3","shape":[2,3,4],"data_offsets":[0,24]}}' 24
refused 1 'eight: .*F8_E4M3' eight
capture values '{"logits":{"dtype":"F32","shape":[2,3,4],"data_offsets":[0,96]},"v":{"dtype":"F32","shape":[2,3,4],"data_offsets":[96,192]}}' 192
refused 1 'values: at byte [0-9]*: tensor v: .*4 keys, got 3' values
capture maybe "{\"__metadata__\":{\"causal\":\"maybe\"},${good:1}" 192
refused 1 'causal.*maybe' maybe
capture number "{\"__metadata__\":{\"causal\":true},${good:1}" 192
refused 1 '^attnscope-report: number: at byte ' number
capture broken "{\"__metadata__\":{\"causal\":\"tr" 0
refused 1 '^attnscope-report: broken: at byte ' broken
capture lines "{\"__metadata__\":{\"causal\":\"a\\nb\\u001b[2J\"},${good:1}" 192
refused 1 'got "a\\x0ab\\x1b\[2J"' lines # one line, and nothing for the terminal to obey

# ---- wrong use
refused 2 '--temperature must be > 0' --temperature -1
refused 2 '--temperature must be > 0' --temperature 0
refused 2 '--temperature must be > 0' --temperature nan
refused 2 '--temperature must be > 0' --temperature inf
refused 2 '--temperature' --temperature warm
refused 2 '--temperature' --temperature
refused 2 '--scale must be finite' --scale inf
refused 2 '--scale: only q and k' --scale 2 eight
refused 2 '--select.*>= 1, got 0' --select 0
refused 2 '--select.*>= 1, got 0' --select 1,0,5
refused 2 '--select' --select 1,,5
refused 2 '--select' --select ''
refused 2 '--select' --select -3
refused 2 '--select' --select 5-2
refused 2 '--select' --select 99999999999999999999
refused 2 '--normalizer: .*must be one of softmax, .*got hardmax' --normalizer hardmax
refused 2 '--reading must be cumulative or resultant' --reading both
refused 2 '--ball-radius' --ball-radius 0
refused 2 '--ball-radius' --ball-radius -1
refused 2 '--ball-radius' --ball-radius near
refused 2 '--layers: there is no layer 2; the input has layers 0 to 1' --layers 2
refused 2 '--layers: there is no layer 1' good.safetensors --layers 0,1
refused 2 '--heads: there is no head 7' good.safetensors --heads 0,7
refused 2 '--heads' --heads x
refused 2 '--heads' --heads ''
refused 2 '--seed' --seed -1
refused 2 '--seed' --seed 99999999999999999999
refused 2 '--no-causal' --causal --no-causal
refused 2 '--stream: only softmax of q and k' eight --stream
refused 2 '--stream: only softmax of q and k' --stream --normalizer entmax:1.5
refused 2 '--no-stream' --stream --no-stream
refused 2 '--threads must be a whole number from 1 to 1024, got 0' --threads 0
refused 2 '--bogus' --bogus
refused 2 'INPUT' good.safetensors good.safetensors
refused 2 'INPUT' q=good.safetensors w=good.safetensors
refused 2 'given twice' q=text q=text # names are looked at before files

# ---- places where nothing can be written
refused 1 'folder .*nowhere does not exist' --json nowhere/out.json
refused 1 'nowhere.*does not exist' --csv nowhere
refused 1 'text.*does not exist' --csv text
refused 2 '--json' --json ''
refused 2 '--csv' --csv ''
refused 1 'folder: ' good.safetensors --json folder
refused 1 '/proc/out.json: cannot be created' good.safetensors --json /proc/out.json
if [ -c /dev/full ]; then
    refused 1 '/dev/full: cannot be written whole' good.safetensors --json /dev/full
    for arguments in "" "--json -"; do
        # shellcheck disable=SC2086
        "$report" good.safetensors $arguments >/dev/full 2>run/err
        [ $? -eq 1 ] && grep -Eq 'cannot write to (standard output|file)' run/err || wrong "a full disk goes unnoticed"
    done
fi
if [ "$(id -u)" -ne 0 ]; then
    mkdir sealed
    chmod 555 sealed
    refused 1 'sealed/out.json: cannot be created' good.safetensors --json sealed/out.json
    refused 1 'sealed/.*cannot be created' good.safetensors --csv sealed
fi

# ---- an older output stays until the new one is whole
echo old >out.json
refused 2 'no layer 9' good.safetensors --layers 9 --json out.json
[ "$(cat out.json)" = old ] || wrong "a failed run touches the old output"
accepted good.safetensors --json out.json
head -n 1 out.json | grep -qx '{' || wrong "the new output is not JSON"
[ -z "$(find . -name '*.partial*')" ] || wrong "partial files are left"

# A link stays a link, a pipe a pipe.
echo old >target
ln -s target link
accepted good.safetensors --json link
[ -L link ] && grep -q attnscope.report/1 target || wrong "a link is replaced"
mkfifo pipe
cat pipe >run/piped &
accepted good.safetensors --json pipe
wait $!
[ -p pipe ] && cmp -s run/piped out.json || wrong "a pipe is replaced"

# ---- success
for arguments in --help -h --version; do
    accepted $arguments
done
run --version
version="$(sed -nE 's/^#define ATTNSCOPE_VERSION_(MAJOR|MINOR|PATCH) ([0-9]+)$/\2/p' \
    "$ATTNSCOPE_SOURCE/include/attnscope/config.hpp" | paste -sd.)"
[ "$(cat run/out)" = "attnscope-report $version" ] || wrong "--version is not $version"
run --help
for option in --temperature --normalizer --scale --window --causal --no-causal --batch --layout --masked-below \
    --normalise-weights --select --reading --ball-radius --seed --layers \
    --heads --rows --json --csv; do
    grep -q -- "$option" run/out || wrong "--help does not know $option"
    grep -q -- "$option" "$ATTNSCOPE_SOURCE/docs/report.md" || wrong "docs/report.md does not tell of $option"
done
accepted
grep -q 'synthetic heads from a generator' run/out || wrong "synthetic heads are not labelled"
grep -q 'No sharp statement is violated' run/out || wrong "the audit has no summary"
accepted --temperature 2 --normalizer sigmoid --layers 1 --heads 0,2-3 --select 1,3 --reading resultant --ball-radius 0.5
accepted --layers 0 --heads 0 --json -
head -n 1 run/out | grep -qx '{' && tail -n 1 run/out | grep -qx '}' || wrong "--json - prints more than JSON"
cp good.safetensors synthetic
accepted synthetic
grep -q 'synthetic heads' run/out && wrong "a file of that name passes for synthetic heads"
cp good.safetensors 'a name with = and spaces'
accepted 'a name with = and spaces'

# ---- the same bytes twice
mkdir first second
accepted --heads 1,3 --rows --json first/out.json --csv first
cp run/out first/text
accepted --heads 1,3 --rows --json second/out.json --csv second
cp run/out second/text
diff -r first second >run/err || wrong "two runs differ"
[ "$(find first -type f | wc -l)" -eq 7 ] || wrong "expected text, JSON and five tables, got $(ls first)"
# Streamed heads: the same figures, and the same bytes whatever the threads.
accepted --layers 0 --no-stream
sed -n '/^layer head/,/^Summary/p' run/out >run/whole
accepted --layers 0 --stream --threads 1
sed -n '/^layer head/,/^Summary/p' run/out >run/streamed
cp run/out run/one
[ "$(wc -l <run/whole)" -gt 3 ] && cmp -s run/whole run/streamed || wrong "streamed heads have other figures"
grep -q '^streamed .* 16 rows of each head' run/out || wrong "the text does not tell that heads are streamed"
accepted --layers 0 --stream --threads 3
cmp -s run/out run/one || wrong "threads change the results"
accepted --heads 1,3 --seed 2
cmp -s run/out first/text && wrong "the seed changes nothing"

# ---- QK-clip: the factor brings the largest logit to the limit
accepted --qk-clip 10
grep -q '^QK-clip: heads whose largest logit is above 10' run/out || wrong "--qk-clip tells nothing"
accepted --qk-clip 10 --json -
awk -F'[:,]' '/"max_logit"/ { most = $2 } /"qk_clip_factor"/ { n++; want = most > 10 ? 10 / most : 1
    if ($2 - want > 1e-12 || want - $2 > 1e-12) bad = 1 } END { exit n != 8 || bad }' run/out ||
    wrong "factors of QK-clip"
refused 2 "--qk-clip must be > 0 and finite, got 0" --qk-clip 0

# ---- long work: a line that counts on a terminal, silence elsewhere, and nothing left when it is killed
capture long.safetensors '{"logits":{"dtype":"F32","shape":[4000,256,256],"data_offsets":[0,1048576000]}}' 1048576000
"$report" long.safetensors --json long.json >run/out 2>run/err &
quiet=$!
if script -qefc 'test -t 1' /dev/null >/dev/null 2>&1 </dev/null; then
    : >run/terminal
    script -qfc "'$report' long.safetensors" run/terminal >/dev/null 2>&1 </dev/null &
    shown=$!
    for _ in $(seq 100); do
        grep -q 'analysing heads [0-9]*/4000, [0-9]* s left' run/terminal && break
        sleep 0.1
    done
    grep -q 'analysing heads [0-9]*/4000, [0-9]* s left' run/terminal || wrong "no progress on a terminal"
    kill "$shown"
    wait "$shown" 2>/dev/null
else
    echo "skipped: progress on a terminal (no program script, or no pseudo-terminal can be made)"
    sleep 2
fi
kill "$quiet"
wait "$quiet" 2>/dev/null
[ $? -eq 143 ] || wrong "the long run was over before it was killed"
[ ! -s run/out ] && [ ! -s run/err ] || wrong "noise without a terminal"
[ ! -e long.json ] && [ -z "$(find . -name '*.partial*')" ] || wrong "a killed run leaves a file"

[ "$failed" -eq 0 ] && echo "$checks runs behave"
exit "$failed"
