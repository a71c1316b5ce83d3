#!/usr/bin/env bash
# What the audit says of several inputs side by side: the median tightness of every statement, as a table in Markdown.
#   examples/audit_table.sh 'INPUT [OPTION...]'...     each argument is what attnscope-report is called with; in it quotes
#   keep a name with spaces together: '"my head.safetensors" --causal'
# "vacuous" stands where every row is true and no better than what holds without the theorem, a dash where no row is asked.
set -eu
report=${ATTNSCOPE_BIN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build/bin}/attnscope-report
[ $# -ge 1 ] || { echo "examples/audit_table.sh: name at least one input" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=()
for input in "$@"; do
    folder=$work/${#files[@]}
    mkdir "$folder"
    xargs -r printf '%s\0' <<<"$input" >"$work/words" # fails for a quote without its other
    mapfile -d '' -t words <"$work/words"
    "$report" "${words[@]}" --csv "$folder" >/dev/null
    files+=("$folder/audit.csv")
done
awk -F, -v inputs="${#files[@]}" '
    FNR == 1 { ++file; for (i = 1; i <= NF; ++i) column[$i] = i; next }
    {
        name = "`" $column["id"] "` " $column["form"]
        if (!(name in seen)) { seen[name] = 1; order[++count] = name }
        rows = $column["checked"]
        cell[name, file] = rows == 0 ? "-" : $column["vacuous"] == rows ? "vacuous" : sprintf("%.4f", $column["median_tightness"])
    }
    END {
        line = "| statement |"; rule = "|---|"
        for (i = 1; i <= inputs; ++i) { line = line " " i " |"; rule = rule "---|" }
        print line; print rule
        for (n = 1; n <= count; ++n) {
            line = "| " order[n] " |"
            for (i = 1; i <= inputs; ++i) line = line " " ((order[n], i) in cell ? cell[order[n], i] : "-") " |"
            print line
        }
    }' "${files[@]}"
