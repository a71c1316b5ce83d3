#!/usr/bin/env bash
# attnscope-report --html: refusals, figures that are those of the JSON, tokens that stay text, and in a real browser the
# keyboard's way over the page, numbers that agree with the library's, contrast and width.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
model="$ATTNSCOPE_SOURCE/examples/data/shakespeare" prose="$ATTNSCOPE_SOURCE/examples/data/prose.txt"
look() { python3 "$ATTNSCOPE_SOURCE/tests/support/page_check.py" "$@" || complain "$1: see above"; }

mkdir "$work/states"
refused 2 '--html: states hold no patterns of attention' --html "$work/a.html" --states "$work/states"
refused 2 '--html: states hold no patterns of attention' --html "$work/a.html" --states "$work/states" --merge
refused 2 '--html: states hold no patterns of attention' --html "$work/a.html" --states "$work/states" --shard 1/2
refused 2 '--html: must name a file, got -' --html -
refused 2 '--json and --html: only one of them may be' --html "$work/a.html" --json "$work/a.html"
refused 1 'does not exist' --html "$work/nowhere/a.html"
[ -e "$work/a.html" ] && complain "a refused page is there"

# made NAME ARGUMENT...: the page NAME.html, the same for any number of threads, below its limit.
made() {
    local name=$1
    shift
    "$program" "$@" --html "$work/$name.html" --threads 2 >"$work/out" 2>"$work/err" || complain "$name: $(cat "$work/err")"
    [ -s "$work/err" ] && complain "$name: writes to standard error: $(cat "$work/err")"
    [ "$(wc -c <"$work/$name.html")" -le 8000000 ] || complain "$name.html has more than 8 MB"
    tail -c 8 "$work/$name.html" | grep -q '</html>' || complain "$name.html does not end"
}
made page "$model" --text "$prose" --length 192 --json "$work/page.json" --rows
cp "$work/page.html" "$work/first.html"
"$program" "$model" --text "$prose" --length 192 --json "$work/page.json" --rows --html "$work/page.html" --threads 1 >"$work/out"
cmp -s <(sed 's/--threads 2//' "$work/first.html") <(sed 's/--threads 1//' "$work/page.html") ||
    complain "the page depends on the threads"
made streamed --stream
grep -q '"streamed":true' "$work/streamed.html" || complain "a streamed report makes a page that does not say so"

command -v python3 >/dev/null || { echo "skipped: no python3, the page's figures are not checked"; [ $failed -eq 0 ] && exit 77; exit 1; }
look data "$work/page.html" "$work/page.json"
name="$work/a<img src=x onerror=hurt=1>&'\""
look model "$model" "$name"
made hostile "$name" --tokens "$name.tokens" --parts statistics
[ $failed -eq 0 ] || exit 1
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    { echo "skipped: no chromium, the page is not opened (its data are as they should be)"; exit 77; }
look browser "$browser" "$work/page.html" "$work/hostile.html"
exit $failed
