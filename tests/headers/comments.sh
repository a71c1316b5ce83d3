#!/usr/bin/env bash
# Public names of include/attnscope have doc comments, with labels in one order: fails on a free function, a class or a
# concept without one, on a label out of its place, and on a function that refuses arguments and does not say so.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/include/attnscope

# faults <file>...: one line each. What stands in a namespace detail is nobody's to call.
faults() {
    awk '
    function report(what) { printf "%s:%d: %s\n", FILENAME, FNR, what }
    function begin_block() { block = ""; last = 0; labels = "" }
    # The labels, by place.
    function rank(text) {
        return text ~ /^Invariant\./ ? 1 : text ~ /^Formula\./ ? 2 : text ~ /^Shapes and units\./ ? 3 : \
               text ~ /^Special rows\./ ? 4 : text ~ /^Cost\./ ? 5 : text ~ /^Throws\./ ? 6 : \
               text ~ /^Source\./ ? 7 : text ~ /^Example[:,]/ ? 8 : 0
    }
    function add_comment(line,    text, place) {
        text = line
        sub(/^ *\/\/\/ ?/, "", text)
        block = block text "\n"
        if (text ~ /^    /) return # a formula or code
        place = rank(text)
        if (place > 0 && place <= last) report("this label stands behind one that it belongs before: " text)
        if (place > 0) last = place
        if (text ~ /(Throws|Cost|Source|Formula|Special rows|Shapes and units):|Throws( `|$)|Cost O\(/ || \
            text ~ /. (Formula|Shapes and units|Special rows|Cost|Throws|Source)\. /)
            report("a label begins a line and ends with a full stop: " text)
    }
    function end_declaration() {
        if (declaration ~ /^(template <> )?(namespace|inline namespace|using|extern|#)/ || declaration ~ /^template <>/ ||
            declaration ~ /^template [^<]/ || substr(declaration, 1, index(declaration, "(")) ~ / [A-Za-z]+(<T>)?::[A-Za-z_]+\($/ || \
            declaration ~ /^(class|struct) [A-Za-z]+;/ || declaration ~ /\) -> /) kind = ""
        else if (declaration ~ /(^|> )(class|struct|enum class) /) kind = "type"
        else if (declaration ~ /concept [A-Za-z]+ =/) kind = "concept"
        else if (declaration ~ /\(/ && declaration !~ /inline constexpr [A-Za-z:<>0-9_, *]+ [a-z_0-9]+( =|\{)/) kind = "function"
        else kind = ""
        if (kind != "" && block == "") report("this " kind " has no doc comment: " substr(declaration, 1, 80))
    }
    # A body that checks its arguments belongs to a function that says what it throws, itself or by its kin.
    function end_body() {
        if (kind == "function" && body ~ /detail::(require|fail|checked_)|throw io_error/ && \
            block !~ /Throws\. / && block !~ /(^|\n)(As above|The same|As `)|[Ee]rrors as of/)
            report("this function refuses arguments, its comment does not say which: " substr(declaration, 1, 80))
        kind = declaration = body = ""
        begin_block()
    }
    FNR == 1 { hidden = 0; open = inside = 0; kind = declaration = body = ""; begin_block() }
    /^namespace detail \{/ { hidden = 1 }
    /^} \/\/ namespace detail/ { hidden = 0; begin_block(); next }
    hidden { next }
    /^ *\/\/\// { if (!inside) add_comment($0); else { if (!member++) last = 0; add_comment($0) } next }
    { member = 0 }
    inside { body = body $0 "\n"; if ($0 ~ /^}/) { inside = 0; end_body() } next }
    /^$|^#|^\/\/|^ *#/ { if (!open) begin_block(); next }
    /^}/ { begin_block(); next }
    /^[^ ]/ || open {
        line = $0
        sub(/^ +/, "", line)
        declaration = declaration (declaration == "" ? "" : " ") line
        open = 1
        if ($0 ~ /[;{}]$|\{ *\/\/|; *\/\/|^[^ ].*\{.*\}$/) {
            open = 0
            end_declaration()
            if ($0 ~ /\{( *\/\/.*)?$/ && declaration !~ /namespace/) inside = 1
            else end_body()
        }
    }' "$@"
}

mapfile -t headers < <(find "$top" -name '*.hpp' ! -path '*/detail/*' | sort)
[ "${#headers[@]}" -gt 80 ] || { echo "only ${#headers[@]} headers were found"; exit 1; }
found=$(faults "${headers[@]}")
[ -z "$found" ] || { echo "${found//$top\//}"; exit 1; }

# The examples of classes are compiled and run: every line of them, blanks and comments aside, stands in one test.
code() { sed -E 's|^ */// *||; s|//.*||' "$@" | tr -d ' \t'; }
tested=$(code "$top/../../tests/doors/test_comment_examples.cpp" | tr -d '\n')
while read -r line; do
    [[ $tested == *"$line"* ]] || { echo "tests/doors/test_comment_examples.cpp has no line $line"; exit 1; }
done < <(awk '/^ *\/\/\/ Example/ { on = 1; next } on && /^ *\/\/\/     / { print; next } { on = 0 }' "${headers[@]}" | code)

# A check that could not fail would be none.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for wrong in 'inline int f(int x) { return x; }' 'struct S {\n    int x = 0;\n};' \
    'template <class T>\nconcept C = true;' \
    '/// F.\n/// Throws. `invalid_argument` for 0.\n/// Cost. O(1).\ninline int f(int x);' \
    '/// F. Throws `invalid_argument` for 0.\ninline int f(int x);' \
    '/// F.\ninline int f(int x) {\n    detail::require(x > 0, "f", "x must be > 0", x);\n    return x;\n}'; do
    printf "%b\n" "$wrong" >"$folder/wrong.hpp"
    [ -n "$(faults "$folder/wrong.hpp")" ] || { echo "not noticed: $wrong"; exit 1; }
done
printf '/// F.\n/// Cost. O(1).\n/// Throws. `invalid_argument` unless x > 0.\ninline int f(int x) {\n    detail::require(x > 0);\n}\n' >"$folder/right.hpp"
[ -z "$(faults "$folder/right.hpp")" ] || { echo "noticed without a reason"; exit 1; }
