#!/usr/bin/env bash
# examples/audit_table.sh: a row for every statement of the audit, with the medians that the report's audit.csv has.
set -u
program="$ATTNSCOPE_SOURCE/examples/audit_table.sh"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

input="$ATTNSCOPE_SOURCE/examples/data/shakespeare --text $ATTNSCOPE_SOURCE/examples/data/prose.txt --length 24"
mkdir "$work/csv"
# shellcheck disable=SC2086 # options are words
"$ATTNSCOPE_BIN/attnscope-report" $input --csv "$work/csv" >/dev/null 2>&1 || complain "no audit.csv"
cp "$ATTNSCOPE_SOURCE/examples/data/prose.txt" "$work/a text.txt"
quoted="'$ATTNSCOPE_SOURCE/examples/data/shakespeare' --text '$work/a text.txt' --length 24 --normalizer entmax:1.5"
"$program" "$input" "$quoted" >"$work/out" 2>"$work/err" || complain "it fails: $(cat "$work/err")"
[ "$(wc -l <"$work/out")" -eq $(($(wc -l <"$work/csv/audit.csv") + 1)) ] || complain "not one line for each statement"
awk -F, 'NR > 1 { printf "| `%s` %s | %s |\n", $1, $2, $4 == 0 ? "-" : $7 == $4 ? "vacuous" : sprintf("%.4f", $10) }' \
    "$work/csv/audit.csv" >"$work/right"
diff "$work/right" <(tail -n +3 "$work/out" | sed -E 's/^(\| [^|]*\| [^|]*\|).*/\1/') || complain "other medians (above, >)"
grep -Eq '^\| `entmax_support` sharp \| - \| [01]\.[0-9]+ \|$' "$work/out" || complain "entmax has no statement of its own"
"$program" >/dev/null 2>&1 && complain "it takes no input for one"
"$program" "'open --length 24" >/dev/null 2>&1 && complain "it takes a quote without its other"
exit "$failed"
