#!/usr/bin/env bash
# From a fresh clone to the pictures: installs what is missing, builds the example programs into build/bin and runs
# attnscope-paper on the model and the prose in examples/data. With arguments it runs attnscope-report on them instead. With
# --model NAME first, it downloads the model (fetch_model.sh), runs it with the further arguments of attnscope-capture (unless
# there are any, on the README) and reports on its heads.
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
{
    need_packages "${program_packages[@]}"
    configure ATTNSCOPE_BUILD_EXAMPLES=ON -- ATTNSCOPE_BUILD_TESTS=OFF ATTNSCOPE_BUILD_BENCHMARKS=OFF
    cmake --build "$build" --parallel "$jobs" --target attnscope_examples
} >&2 </dev/null
cd "$here"
if [ $# -eq 0 ]; then
    echo "attnscope-paper on the bundled model examples/data/shakespeare and the text examples/data/prose.txt"
    mkdir -p "$root/out"
    exec "$build/bin/attnscope-paper" "$root/examples/data/shakespeare" --text "$root/examples/data/prose.txt" \
        --out "$root/out/paper"
fi
if [ "${1-}" = --model ]; then
    [ $# -ge 2 ] || { echo "examples/run.sh: --model needs a name, such as gpt2" >&2; exit 2; }
    folder=$("$root/examples/fetch_model.sh" "$2")
    shift 2
    [ $# -gt 0 ] || set -- --text "$root/README.md"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$build/bin/attnscope-capture" "$folder" "$@" --out "$work/capture.safetensors"
    "$build/bin/attnscope-report" "$work/capture.safetensors"
    exit
fi
exec "$build/bin/attnscope-report" "$@"
