#!/usr/bin/env bash
# The twelve lines: they run, and the README shows them and what they print.
set -u
export LC_ALL=C
readme="$ATTNSCOPE_SOURCE/README.md"
if [ ! -e "$readme" ]; then
    echo "skipped: there is no README.md" >&2
    exit 77
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
if ! "$ATTNSCOPE_BIN/attnscope-quick-start" >"$work/out" 2>"$work/err" </dev/null || [ -s "$work/err" ]; then
    echo "attnscope-quick-start fails"
    cat "$work/err"
    exit 1
fi
failed=0
grep -Eq '^largest weight 0\.[0-9]{4}, entropy [0-9.]+ nats$' "$work/out" || failed=1
grep -Eq '^as concentrated as [0-9.]+ equal keys$' "$work/out" || failed=1
grep -Eq '^sensitivity 0\.[0-9]{4} of at most 0\.5000$' "$work/out" || failed=1
[ "$(wc -l <"$work/out")" -eq 3 ] || failed=1
[ "$failed" -eq 0 ] || { echo "attnscope-quick-start prints:"; cat "$work/out"; }

awk '/^<!-- quick_start.cpp -->$/ { marked = 1; next }
     marked && /^```cpp$/ { inside = 1; next }
     inside && /^```$/ { exit }
     inside { print }' "$readme" >"$work/block"
if ! [ -s "$work/block" ]; then
    echo "README.md has no C++ block after its line <!-- quick_start.cpp -->"
    failed=1
elif ! diff "$ATTNSCOPE_SOURCE/examples/quick_start.cpp" "$work/block"; then
    echo "README.md and examples/quick_start.cpp differ (above)"
    failed=1
fi
while IFS= read -r line; do
    grep -Fqx -- "$line" "$readme" || { echo "README.md does not show the output: $line"; failed=1; }
done <"$work/out"
exit "$failed"
