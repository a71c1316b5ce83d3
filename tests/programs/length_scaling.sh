#!/usr/bin/env bash
# attnscope-length-scaling from a shell: exit status and one clear line for everything that is wrong, the same bytes
# for any number of threads, figures that agree with closed forms computed here, predictions that agree with what is
# measured, a picture where gnuplot is there and a clear line where it is not.
set -u
export LC_ALL=C
program="$ATTNSCOPE_BIN/attnscope-length-scaling"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
mkdir run folder
failed=0
checks=0

wrong() {
    echo "FAILED: $1"
    sed 's/^/    stdout: /' run/out | head -n 5
    sed 's/^/    stderr: /' run/err | head -n 5
    failed=1
}

run() {
    "$program" "$@" >run/out 2>run/err </dev/null
    status=$?
}

everything() { find . -path ./run -prune -o -printf '%p %s\n' | sort; }

# refused STATUS PATTERN ARGUMENT...: this exit status, one line on stderr that matches, nothing on stdout, no new file.
refused() {
    local expected="$1" pattern="$2"
    shift 2
    everything >run/before
    run --lengths 8:64 --select 2 --trials 3 "$@"
    everything >run/after
    checks=$((checks + 1))
    [ "$status" -eq "$expected" ] || wrong "$*: status $status, expected $expected"
    [ ! -s run/out ] || wrong "$*: prints results"
    [ "$(wc -l <run/err)" -eq 1 ] || wrong "$*: not one line on stderr"
    grep -q '^attnscope-length-scaling: ' run/err || wrong "$*: the line does not name the program"
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

# ---- wrong use
refused 2 '--normalizers: .*hardmax' --normalizers softmax,hardmax
refused 2 '--normalizers' --normalizers ''
refused 2 '--normalizers: ' --normalizers softmax,
refused 2 '--normalizers: .*alpha must be >= 1.*got 0.5' --normalizers entmax:0.5
refused 2 '--margin must be > 0 and at most 1000, got -1' --margin -1
refused 2 '--margin must be > 0' --margin nan
refused 2 '--margin' --margin wide
refused 2 '--spread must be > 0 and at most 1000, got 0' --spread 0
refused 2 '--spread must be > 0' --spread inf
refused 2 '--background must be one of gaussian, student, measured, got uniform' --background uniform
refused 2 '--dimension must be a whole number from 1 to 1024, got 0' --dimension 0
refused 2 '--dimension must be .*, got 2.5' --dimension 2.5
refused 2 '--seed must be a whole number from 0 to 18446744073709551615, got -1' --seed -1
refused 2 '--threads must be a whole number from 1 to 1024, got 0' --threads 0
refused 2 '--csv and --svg: only one' --csv - --svg -
refused 2 '--csv' --csv ''
refused 2 '--bogus' --bogus
refused 2 'stray' stray

# alone STATUS PATTERN ARGUMENT...: as refused, of options that `refused` gives itself.
alone() {
    local expected="$1" pattern="$2"
    shift 2
    run "$@"
    checks=$((checks + 1))
    [ "$status" -eq "$expected" ] || wrong "$*: status $status, expected $expected"
    [ ! -s run/out ] && [ "$(wc -l <run/err)" -eq 1 ] || wrong "$*: not one line on stderr alone"
    grep -Eq -- "$pattern" run/err || wrong "$*: the line does not match '$pattern'"
}
for lengths in 64 :64 64: 64:32 60:128 64:100 1:64 64:33554432 64:128:256 a:b 64:-128 ''; do
    alone 2 "--lengths must be FROM:TO, powers of two from 2 to 16777216, FROM <= TO, got $lengths" --lengths "$lengths"
done
alone 2 '--select must be a whole number from 1 to 7, got 8' --lengths 8:64 --select 8
alone 2 '--select must be .*, got 0' --select 0
alone 2 '--trials must be a whole number from 1 to 10000, got 0' --trials 0
alone 2 '--lengths: TO x \(--dimension \+ --trials\) must be at most 536870912, got' --lengths 64:16777216

# ---- places where nothing can be written
refused 1 'folder .*nowhere does not exist' --csv nowhere/out.csv
refused 1 'folder: ' --csv folder
if [ -c /dev/full ]; then
    refused 1 '/dev/full: cannot be written whole' --csv /dev/full
    "$program" --lengths 8:16 --select 2 --trials 1 --normalizers softmax >/dev/full 2>run/err
    [ $? -eq 1 ] && grep -q 'cannot write to standard output' run/err || wrong "a full disk goes unnoticed"
fi

# ---- what is asked for
run --version
[ "$status" -eq 0 ] && grep -Eq '^attnscope-length-scaling [0-9]' run/out || wrong "--version"
run --help
for option in --normalizers --margin --background --spread --lengths --dimension --select --trials --seed --threads \
    --csv --svg; do
    grep -q -- "$option" run/out || wrong "--help does not know $option"
    grep -q -- "\`$option" "$ATTNSCOPE_SOURCE/docs/length_scaling.md" || wrong "docs/length_scaling.md does not tell of $option"
done

# ---- any number of threads gives the same bytes, a seed other ones
quick=(--lengths 32:2048 --select 4 --dimension 3 --trials 5)
for threads in 1 2 5; do
    accepted "${quick[@]}" --threads "$threads" --csv "threads$threads.csv"
    cp run/out "threads$threads.txt"
done
for threads in 2 5; do
    cmp -s threads1.csv "threads$threads.csv" || wrong "$threads threads give another CSV"
    cmp -s threads1.txt "threads$threads.txt" || wrong "$threads threads give another text"
done
accepted "${quick[@]}" --seed 2 --csv -
cmp -s run/out threads1.csv && wrong "the seed changes nothing"
head -n 1 run/out | grep -q '^normalizer,length,rows,' || wrong "--csv - prints more than CSV"
accepted "${quick[@]}" --background student
accepted "${quick[@]}" --background measured --normalizers 'softmax|topp:0.9,participation:2,quadratic,temperature:2|relu'
# The columns of a CSV by name, then one line for each line: column CSV NAME...
columns() {
    local file="$1"
    shift
    awk -F, -v names="$*" 'NR == 1 { count = split(names, name, " "); for (i = 1; i <= NF; ++i) at[$i] = i; next }
        { line = ""; for (i = 1; i <= count; ++i) line = line (i > 1 ? "," : "") $at[name[i]]; print line }' "$file"
}
# Every figure is there, and where it must be.
columns threads1.csv normalizer length needle_weight weight_sum entropy_nats participation_ratio top_mass \
    geometric_recall spectral_norm needle_gradient distance distance_per_key predicted_needle_weight >all
awk -F, 'function close_to(a, b) { return a - b < 1e-4 * (b + 1e-9) && b - a < 1e-4 * (b + 1e-9) }
    { for (i = 3; i <= NF; ++i) if ($i !~ /^[0-9.e+-]+$/) bad = 1
      if ($3 < 0 || $3 > 1.00001 || $7 < 0 || $7 > 1.00001 || $8 < 0 || $8 > 1) bad = 1
      if ($5 > log($2) + 1e-4 || $6 > $2 * 1.0001 || $6 < 0.9999) bad = 1
      if ($10 > $9 * 1.02 + 1e-12) bad = 1 # a row of a matrix is no longer than its norm
      if (!close_to($11, $12 * ($2 - 4))) bad = 1
      if (bad) { print; exit 1 } }' all >bad || wrong "a figure is missing or impossible: $(cat bad)"

# ---- closed forms: a needle of logit 1 among keys of logit 0 or nearly so
accepted --lengths 4:1024 --select 1 --trials 3 --spread 0.001 --margin 1000 --normalizers softmax,sigmoid,sink:1 --csv flat.csv
columns flat.csv normalizer length needle_weight entropy_nats participation_ratio spectral_norm needle_gradient \
    needle_own_gradient >flat
awk -F, 'function check(what, a, b) { if (a < b * 0.995 || a > b * 1.005) { print what, $0, "expected", b; bad = 1 } }
    { e = exp(1); n = $2 - 1; total = n + e }
    $1 == "\"softmax\"" {
        p = e / total; q = 1 / total; top = p * (1 - p) + q - n * q * q
        check("weight", $3, p); check("entropy", $4, -p * log(p) - n * q * log(q))
        check("participation", $5, 1 / (p * p + n * q * q)); check("spectral", $6, top > q ? top : q)
        check("gradient", $7, p * sqrt((1 - p) ^ 2 + n * q * q)); check("own", $8, p * (1 - p)) }
    $1 == "\"sigmoid\"" { p = 1 / (1 + $2 / e); check("weight", $3, p); check("own", $8, p * (1 - p)); check("gradient", $7, p * (1 - p)) }
    $1 == "\"sink:1\"" { check("weight", $3, e / (total + 1)) }
    END { exit bad }' flat >bad || wrong "closed form: $(head -n 3 bad)"

# ---- theory and measurement
accepted --lengths 16:16384 --margin 3.5 --trials 31 --normalizers softmax,ssmax:0.43,sigmoid,sparsemax,entropy:1 --select 2 --csv loss.csv
columns loss.csv normalizer measured_loss predicted_loss | sort -u >loss
[ "$(wc -l <loss)" -eq 5 ] || wrong "expected five losses, got $(cat loss)"
awk -F, '!($2 > 0 && $3 > 0 && $2 < 2 * $3 && $3 < 2 * $2) { print; bad = 1 } END { exit bad }' loss >bad ||
    wrong "measured and predicted lengths differ: $(cat bad)"
tr '\n' ' ' <run/out | grep -q 'Softmax loses it at [0-9]* keys (predicted: [0-9]*)' || wrong "no answer about softmax"
columns loss.csv normalizer needle_weight predicted_needle_weight |
    awk -F, '$1 ~ /softmax|sigmoid/ && ($2 - $3 > 0.05 || $3 - $2 > 0.05) { print; bad = 1 } END { exit bad }' >bad ||
    wrong "measured and predicted weights differ: $(cat bad)"

# ---- the picture
if command -v gnuplot >/dev/null; then
    accepted "${quick[@]}" --svg picture.svg
    grep -q '</svg>' picture.svg || wrong "no picture"
    for name in softmax ssmax:0.43 entropy:1; do
        grep -q "$name" picture.svg || wrong "the picture does not name $name"
    done
    accepted "${quick[@]}" --normalizers 'softcap:50|softmax|topk:3' --background student --svg -
    head -n 1 run/out | grep -q '^<?xml' || wrong "--svg - prints more than the picture"
else
    echo "without gnuplot: pictures are not checked"
fi
PATH=/nowhere "$program" "${quick[@]}" --svg none.svg >run/out 2>run/err
[ $? -eq 1 ] && [ ! -s run/out ] && [ ! -e none.svg ] && grep -q 'needs gnuplot, which is not installed' run/err ||
    wrong "a missing gnuplot is not told of"

[ "$failed" -eq 0 ] && echo "$checks runs behave"
exit "$failed"
