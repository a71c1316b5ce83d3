#!/usr/bin/env bash
# single_header.sh <cmake> <build> <source> <compiler> <Eigen>: programs with nothing but attnscope_single.hpp beside them.
set -eu
cmake=$1 build=$2 source=$3 compiler=$4 eigen=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cmake" --build "$build" --target amalgamate
cp "$build/attnscope_single.hpp" "$work"
if grep '#include <attnscope/' "$work/attnscope_single.hpp"; then exit 1; fi
for program in tests/consumer/main.cpp examples/quick_start.cpp; do
    sed 's|<attnscope/attnscope.hpp>|"attnscope_single.hpp"|' "$source/$program" >"$work/program.cpp"
    grep -q attnscope_single "$work/program.cpp"
    "$compiler" -std=c++20 -O1 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -isystem "$eigen" \
        "$work/program.cpp" -o "$work/program"
    "$work/program"
done
