#!/usr/bin/env bash
# From a fresh clone to all tests: installs what is missing, builds everything into build/ and runs CTest with the
# arguments given here (tests/run.sh -R softmax runs the tests with "softmax" in their names).
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
{
    need_packages "${test_packages[@]}"
    want_packages libllama-dev parallel libopenmpi-dev openmpi-bin # models in GGUF files; many machines
    announce 80 "everything"
    configure ATTNSCOPE_BUILD_EXAMPLES=ON ATTNSCOPE_BUILD_TESTS=ON ATTNSCOPE_BUILD_BENCHMARKS=ON
    cmake --build "$build" --parallel "$jobs"
} </dev/null
exec ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel "$jobs" "$@" </dev/null
