#!/usr/bin/env bash
# Links of the pages lead to files that are there, and to headings that they have, by GitHub's rule for anchors.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# links <folder> <page>...: how many links were followed, behind a line for each that leads nowhere.
links() {
    local folder=$1
    shift
    (cd "$folder" && awk '
    function slug(text,    n) {
        text = tolower(text)
        gsub(/[][()`*.,:;?!\/&+"'\''|^=<>{}~$%@#\\]/, "", text)
        gsub(/ /, "-", text)
        n = seen[FILENAME, text]++
        return n ? text "-" n : text
    }
    function add(target) {
        if (target ~ /^(https?|mailto):/ || target == "") return
        place[++count] = FILENAME ":" FNR
        link[count] = target
    }
    FNR == 1 { fence = 0 }
    /^ *```/ { fence = !fence; next }
    fence { next }
    /^#+ / { text = $0; sub(/^#+ /, "", text); anchors[FILENAME, slug(text)] = 1; next }
    { line = $0; gsub(/`[^`]*`/, "", line) }
    match(line, /^\[[^]]+\]: /) { add(substr(line, RLENGTH + 1)); next }
    {
        while (match(line, /\]\([^() ]+\)/)) {
            target = substr(line, RSTART + 2, RLENGTH - 3)
            line = substr(line, RSTART + RLENGTH)
            add(target)
        }
    }
    END {
        for (i = 1; i <= count; ++i) {
            page = place[i]
            sub(/:.*/, "", page)
            file = link[i]
            hash = index(file, "#")
            anchor = hash ? substr(file, hash + 1) : ""
            if (hash) file = substr(file, 1, hash - 1)
            base = page
            if (!sub(/[^\/]*$/, "", base)) base = ""
            file = file == "" ? page : base file
            while (sub(/[^\/.][^\/]*\/\.\.\//, "", file)) continue
            if (system("test -e \"" file "\"") != 0) print place[i] ": no file " link[i]
            else if (anchor != "" && !((file, anchor) in anchors)) print place[i] ": no heading " link[i]
        }
        print count + 0
    }' "$@")
}

mapfile -t pages < <(cd "$top" && find ./*.md benchmarks docs examples -name '*.md' | sed 's|^\./||' | sort)
found=$(links "$top" "${pages[@]}")
followed=$(tail -1 <<<"$found")
[ "$found" = "$followed" ] || { echo "$found"; exit 1; }
[ "$followed" -gt 60 ] || { echo "only $followed links were found"; exit 1; }

# A check that could not fail would be none.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/docs"
printf '# A\n\n## `b`, c\n' >"$folder/a.md"
for wrong in '[x](../b.md)' '[x](../a.md#b)' '![x](y.svg)' '[x](#d)' '[x]: ../a.md#c'; do
    printf '# T\n\n%s\n' "$wrong" >"$folder/docs/t.md"
    [ "$(links "$folder" a.md docs/t.md | wc -l)" = 2 ] || { echo "not noticed: $wrong"; exit 1; }
done
printf '# T\n\n[x](../a.md#b-c), `[y](z)` and [t](#t)\n' >"$folder/docs/t.md"
[ "$(links "$folder" a.md docs/t.md)" = 2 ] || { echo "noticed without a reason"; exit 1; }
