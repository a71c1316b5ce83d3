#!/usr/bin/env bash
# The example of a normaliser of one's own: it runs, and no statement about it is violated.
set -u
export LC_ALL=C
out="$("$ATTNSCOPE_BIN/attnscope-own-normalizer")" || { echo "attnscope-own-normalizer fails"; exit 1; }
lines=$(cat "$ATTNSCOPE_SOURCE"/examples/own_normalizer.{hpp,cpp} | wc -l)
[ "$lines" -lt 40 ] || { echo "the example has $lines lines"; exit 1; }
for statement in lemma1 lemma2; do
    # statement form provenance rows holds rounding vacuous undefined violated median max
    printf '%s\n' "$out" | awk -v id="$statement" '
        $1 == id && $2 == "sharp" { found = $4 > 0 && $9 == 0 }
        END { exit !found }' || { printf '%s is not clean:\n%s\n' "$statement" "$out"; exit 1; }
done
