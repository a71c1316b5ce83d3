#!/usr/bin/env bash
# What policies of selection keep on average of the heads of several inputs, a table in Markdown for each.
#   examples/selectors_table.sh 'INPUT [OPTION...]'...     each argument is what attnscope-select is called with
set -eu
select=${ATTNSCOPE_BIN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build/bin}/attnscope-select
[ $# -ge 1 ] || { echo "examples/selectors_table.sh: name at least one input" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for input in "$@"; do
    read -ra words <<<"$input"
    "$select" "${words[@]}" --csv "$work/heads.csv" >/dev/null
    awk -F, '
        function percent(name) { return counted[policy, name] ? sprintf("%.1f", 100 * sum[policy, name] / counted[policy, name]) : "-" }
        function plain(name) { return counted[policy, name] ? sprintf("%.3g", sum[policy, name] / counted[policy, name]) : "-" }
        NR == 1 { for (i = 1; i <= NF; ++i) name[i] = $i; next }
        {
            policy = $1
            if (!(policy in seen)) { seen[policy] = 1; order[++count] = policy }
            for (i = 6; i <= NF; ++i) if ($i != "") { sum[policy, name[i]] += $i; ++counted[policy, name[i]] }
        }
        END {
            print "| policy | keys | kept, % | selector, % | budget, % | KL, nats | best key, % | of best N, % | output, % | certain, % | blocks, % |"
            print "|---|---|---|---|---|---|---|---|---|---|---|"
            for (n = 1; n <= count; ++n) {
                policy = order[n]
                shown = policy
                gsub(/"/, "", shown)
                print "| `" shown "` | " plain("keys") " | " percent("kept") " | " percent("selector_loss") " | " percent("budget_loss") " | " plain("kl_nats") " | " percent("top_key") " | " percent("top_recall") " | " percent("relative_error") " | " percent("certified_kept") " | " percent("blocks_read") " |"
            }
            print ""
        }' "$work/heads.csv"
done
