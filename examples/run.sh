#!/usr/bin/env bash
# From a fresh clone to the report: installs what is missing, builds the example programs into build/bin and runs
# attnscope-report with the arguments given here (without any, on the embedded synthetic heads).
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
{
    need_packages "${program_packages[@]}"
    configure ATTNSCOPE_BUILD_EXAMPLES=ON -- ATTNSCOPE_BUILD_TESTS=OFF ATTNSCOPE_BUILD_BENCHMARKS=OFF
    cmake --build "$build" --parallel "$jobs" --target attnscope_examples
} >&2 </dev/null
cd "$here"
exec "$build/bin/attnscope-report" "$@"
