#!/usr/bin/env bash
# precompiled.sh <compiler> <include> <Eigen>: a program of two files, one of which has what takes the compiler long. The
# other must not have it, and both together give what the headers alone give.
set -eu
compiler=$1 include=$2 eigen=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >main.cpp <<'END'
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/runtime/registry.hpp>
#include <cstdio>

int main() {
    const Eigen::MatrixXd q = Eigen::MatrixXd::Random(24, 4), v = Eigen::MatrixXd::Random(24, 3);
    for (const char* name : {"softmax", "entmax:1.5", "topk:3"}) {
        const auto head = attnscope::analyze(q, q, v, {.mask = attnscope::Mask::causal(),
                                                       .normalizer = attnscope::make_normalizer(name), .counts = {2}});
        std::printf("%s %.17g %.17g\n", head.normalizer.c_str(), head.rows.entropy_nats[20], head.selection(2).mass[20]);
    }
    std::printf("%.17g\n", attnscope::analyze_weights(Eigen::MatrixXd::Constant(3, 4, 0.25)).rows.entropy_nats[1]);
}
END
echo '#include <attnscope/precompiled.hpp>' >once.cpp
flags=(-std=c++20 -O0 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror "-I$include" -isystem "$eigen")
"$compiler" "${flags[@]}" main.cpp -o alone
"$compiler" "${flags[@]}" -DATTNSCOPE_PRECOMPILED -c once.cpp
"$compiler" "${flags[@]}" -DATTNSCOPE_PRECOMPILED -c main.cpp
"$compiler" main.o once.o -o together
if "$compiler" "${flags[@]}" -fsyntax-only once.cpp 2>error; then echo "it compiles without the macro"; exit 1; fi
grep -q 'ATTNSCOPE_PRECOMPILED must be defined for all files' error || { cat error; exit 1; }
[ "$(./alone)" = "$(./together)" ] || { ./alone; ./together; echo "compiled once it gives something else"; exit 1; }
[ "$(./alone | wc -l)" -eq 4 ]
command -v nm >/dev/null || exit 0
for name in analyze_head read_normalizer RowAnalyzer; do
    if nm --defined-only main.o | grep "$name"; then echo "$name was compiled again"; exit 1; fi
    nm --defined-only once.o | grep -q "$name" || { echo "$name was not compiled"; exit 1; }
done
