#!/usr/bin/env bash
# attnscope-cache-formats prints the tables of docs/caches.md: the same formats and bytes, figures within what another
# compiler's rounding does to rows whose best key is hardly the best.
set -u
program="$ATTNSCOPE_BIN/attnscope-cache-formats"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

"$program" >"$work/out" 2>"$work/err" || complain "it fails: $(cat "$work/err")"
grep '^|' "$work/out" >"$work/printed"
grep -c . "$work/printed" | grep -qx 37 || complain "not 37 lines of tables"
while IFS= read -r line; do
    # The line of the page that begins with the same format and bytes.
    name=$(cut -d'|' -f2-3 <<<"$line")
    [[ $name == *'`'*'`'* ]] || { grep -qxF -- "$line" "$ATTNSCOPE_SOURCE/docs/caches.md" || complain "docs/caches.md has no: $line"; continue; }
    lead=$(cut -d'|' -f2 <<<"$line")
    found=$(grep -F -- "|$lead|" "$ATTNSCOPE_SOURCE/docs/caches.md") || { complain "docs/caches.md has no row$lead"; continue; }
    # Several tables have the format: one of its rows must agree, numbers to 5 points or a tenth.
    awk -v line="$line" '
        function numbers(text, list) { gsub(/`[^`]*`|[|%,]/, " ", text); return split(text, list, " ") }
        BEGIN { n = numbers(line, want) }
        { m = numbers($0, have); good = m == n
          for (i = 1; i <= n && good; ++i) {
              far = have[i] - want[i]; if (far < 0) far = -far
              good = far <= 0.1 * want[i] || (want[i] == int(want[i]) && want[i] <= 100 && far <= 5)
          }
          if (good) agreed = 1 }
        END { exit !agreed }' <<<"$found" || complain "docs/caches.md has other figures: $line, not $found"
done <"$work/printed"
exit "$failed"
