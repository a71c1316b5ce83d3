#!/usr/bin/env bash
# Every snippet runs, and docs/guide.md shows it and what it prints.
set -u
program=""
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
guide="$ATTNSCOPE_SOURCE/docs/guide.md"

# shown <snippet> <1: the program, 2: its output>: that block of the guide.
shown() {
    awk -v mark="<!-- snippets/$1.cpp -->" -v wanted="$2" '
        $0 == mark { marked = 1; next }
        marked && /^```/ { if (inside) { if (block == wanted) exit; inside = 0 } else { inside = 1; ++block }; next }
        inside && block == wanted { print }' "$guide"
}

count=0
for source in "$ATTNSCOPE_SOURCE"/examples/snippets/*.cpp; do
    name=$(basename "$source" .cpp)
    count=$((count + 1))
    "$ATTNSCOPE_BIN/snippets/$name" >"$work/out" 2>"$work/err" </dev/null || complain "$name fails: $(cat "$work/err")"
    [ ! -s "$work/err" ] || complain "$name writes on standard error: $(cat "$work/err")"
    diff "$source" <(shown "$name" 1) || complain "docs/guide.md shows another $name.cpp (above, >)"
    diff "$work/out" <(shown "$name" 2) || complain "docs/guide.md shows another output of $name (above, >)"
done
[ "$count" -eq "$(grep -c '^<!-- snippets/' "$guide")" ] || complain "docs/guide.md shows a snippet that is not there"
[ "$count" -ge 12 ] || complain "snippets are missing"
exit "$failed"
