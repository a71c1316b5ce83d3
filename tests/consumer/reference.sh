#!/usr/bin/env bash
# reference.sh <cmake> <build> <source>: the target docs makes a reference without a warning, in which names have their
# labels, every link leads somewhere, and nothing comes from a network.
set -eu
cmake=$1 build=$2 source=$3
for tool in doxygen awk; do command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$*"; exit 1; }

# A folder with a space in its name, and one page with a link that leads nowhere, which has to be an error.
copy="$work/a copy"
mkdir "$copy"
cp -r "$source"/{CMakeLists.txt,cmake,docs,include,examples,README.md,CONTRIBUTING.md,SECURITY.md,LICENSE} "$copy"
mkdir "$copy/benchmarks" && cp "$source/benchmarks/NOTES.md" "$copy/benchmarks"
"$cmake" -S "$copy" -B "$work/the build" -DATTNSCOPE_BUILD_TESTS=OFF -DATTNSCOPE_BUILD_EXAMPLES=OFF \
    -DATTNSCOPE_BUILD_BENCHMARKS=OFF -DATTNSCOPE_FETCH=OFF \
    -DEigen3_DIR="$(sed -n 's/^Eigen3_DIR:[A-Z]*=//p' "$build/CMakeCache.txt")" >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
make_docs() { "$cmake" --build "$work/the build" --target docs >"$work/log" 2>&1; }
make_docs || { cat "$work/log"; exit 1; }
! grep -iE 'warning|error:' "$work/log" || fail "Doxygen is not content"
html="$work/the build/reference/html"

# has <page> <label>...: the page shows these headings.
has() {
    local page=$html/$1 label
    shift
    [ -f "$page" ] || fail "no page $page"
    for label in "$@"; do
        grep -q "<dt>$label</dt>" "$page" || fail "$page has no heading $label"
    done
}
has classattnscope_1_1Softmax.html Formula 'Special rows' Cost
has structattnscope_1_1HeadAnalysis.html Throws Example
has classattnscope_1_1Mask.html Invariant Cost Throws Example
has classattnscope_1_1Audit.html Example
has classattnscope_1_1AnyNormalizer.html Invariant Example
has group__header__analysis__analyze.html Cost Throws
has group__header__streaming__scan.html Formula Cost Throws
has group__header__streaming__set__scan.html Formula 'Shapes and units' Cost Throws Example
has group__header__concentration__gap__counting.html Formula Cost Throws
for name in analyze scan scan_selection row_statistics corollary3_sharp; do
    grep -qhE "class=\"memtitle\">.*>$name\(\)" "$html"/group__header_*.html || fail "$name has no entry"
    grep -qE "'$name'" "$html"/search/all_*.js || fail "the search does not find $name"
done
grep -q 'class="fragment".*' "$html/classattnscope_1_1AnyNormalizer.html" || fail "an example is no block of code"
grep -q 'gap__counting.html#[a-z0-9]*">gap_counting_range</a>' "$html/page_bounds.html" ||
    fail "the bounds do not lead to their functions"
grep -q 'gap__counting.html">concentration/gap_counting.hpp</a>' "$html/page_bounds.html" ||
    fail "the bounds do not lead to their headers"
! grep -lE 'v[0-9]+_[0-9]+' "$html"/{class,struct,group}*.html || fail "names show the inline namespace"
! find "$html" -name '*detail*' | grep . || fail "there are pages of what is nobody's to call"
! grep -lE '(src|<link [^>]*href)="https?:' "$html"/*.html || fail "something comes from a network"

# Every link within the reference, those of the search's results too, leads to a page and a place that it has.
links() {
    {
        grep -oHE '(href|src)="[^":]+"' ./*.html
        grep -oHE "'\.\./[^']+'" search/*.js | sed "s|'\.\./\(.*\)'|href=\"\1\"|;s|^search/|./|"
        grep -oHE '(id|name)="[^"]+"' ./*.html
    } | awk '
    {
        colon = index($0, ":")
        page = substr($0, 3, colon - 3)
        quote = index($0, "\"")
        word = substr($0, colon + 1, quote - colon - 2)
        value = substr($0, quote + 1, length($0) - quote - 1)
        if (word == "id" || word == "name") { places[page "#" value] = 1; next }
        gsub(/&amp;/, "\\&", value)
        if (value == "#" || value ~ /^javascript/) next
        if (value ~ /^#/) value = page value
        targets[value] = page
    }
    END {
        for (value in targets) {
            ++count
            file = value
            hash = index(value, "#")
            if (hash) file = substr(value, 1, hash - 1)
            if (!(file in there)) there[file] = system("test -e \"" file "\"") == 0
            if (!there[file]) print targets[value] ": no file " value
            else if (hash && !(value in places)) print targets[value] ": no place " value
        }
        print count
    }'
}
found=$(cd "$html" && links)
followed=$(tail -1 <<<"$found")
[ "$found" = "$followed" ] || fail "$found"
[ "$followed" -gt 1000 ] || fail "only $followed links were found"
rm "$html/classattnscope_1_1Softmax.html"
[ "$(cd "$html" && links | wc -l)" -gt 1 ] || fail "a page that is missing was not noticed"

# Code in the text of a link, a name that has a page of its own too, leads where the link does.
printf '\n[the `scan_heads` of `Mask`](guide.md#weights-and-entropy-of-a-row) and [`attnscope-report --json`](report.md).\n' >>"$copy/docs/plan.md"
make_docs || { cat "$work/log"; exit 1; }
for link in 'page_guide.html#[^"]*">the scan_heads of Mask</a>' \
    'page_report.html">attnscope-report --json</a>'; do
    grep -q "$link" "$html/page_plan.html" || fail "the page on planning has no link $link"
done
printf '\n[nowhere](guide.md#nowhere)\n' >>"$copy/docs/plan.md"
! make_docs || fail "a link that leads nowhere is no error"
grep -q "nowhere" "$work/log" || { cat "$work/log"; fail "another error than that of the link"; }
echo "$followed links"
