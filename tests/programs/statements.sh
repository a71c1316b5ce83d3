#!/usr/bin/env bash
# What attnscope-report --statements lists is what docs/bounds.md proves: a heading for every statement of the headers,
# no other heading, and the list has all that the audit knows.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

"$program" --statements >"$work/list" 2>"$work/err" || complain "it fails: $(cat "$work/err")"
grep -E '^[a-z0-9_]+ (published|sharp) (verbatim|reconstructed|not_recovered|derived)$' "$work/list" >"$work/names"
[ "$(wc -l <"$work/list")" -eq $((4 * $(wc -l <"$work/names"))) ] || complain "not four lines a statement"
[ "$(sort -u "$work/names" | wc -l)" -eq "$(wc -l <"$work/names")" ] || complain "a statement stands twice"

cut -d' ' -f1 "$work/names" | sort -u >"$work/listed"
sed -n 's/^### //p' "$ATTNSCOPE_SOURCE/docs/bounds.md" | sort >"$work/headings"
grep -rhoE '^ +\.id = "[a-z0-9_]+"' "$ATTNSCOPE_SOURCE/include" | cut -d'"' -f2 | sort -u >"$work/defined"
[ -s "$work/listed" ] || complain "the list is empty"
diff "$work/defined" "$work/headings" || complain "statements of the headers (<) and headings of docs/bounds.md (>) differ"
comm -23 "$work/listed" "$work/headings" | grep . && complain "no heading in docs/bounds.md"

# The inequality and what it assumes are those of the table of the audit.
grep -A1 '^corollary3 sharp derived$' "$work/list" | grep -qxF '    |J|_2 <= min{1/(2+(L-2)e^{-D/T}), p1, 2 p1 (1-p1)}/T <= 1/(2T)' || complain "corollary3 has another text"
exit "$failed"
