#!/usr/bin/env bash
# From a fresh clone to the pictures: installs what is missing, builds what it is about to run into build/bin, runs it.
#   examples/run.sh                             attnscope-paper on the model and the prose of examples/data: out/paper
#   examples/run.sh CAPTURE [OPTION...]         attnscope-report on these heads
#   examples/run.sh --model NAME [OPTION...]    downloads the model (fetch_model.sh), runs it with these options of
#                                               attnscope-capture (else on the README), and reports on its heads
#   examples/run.sh attnscope-NAME [OPTION...]  that program
here=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

# build <program>...: into build/bin.
build() {
    cd "$root"
    need_packages "${program_packages[@]}"
    announce 4 "$*"
    configure ATTNSCOPE_BUILD_EXAMPLES=ON -- ATTNSCOPE_BUILD_TESTS=OFF ATTNSCOPE_BUILD_BENCHMARKS=OFF
    cmake --build "$build" --parallel "$jobs" --target "$@"
    cd "$here"
} >&2 </dev/null

if [ $# -eq 0 ]; then
    build attnscope-paper
    echo "attnscope-paper on the bundled model examples/data/shakespeare and the text examples/data/prose.txt"
    mkdir -p "$root/out"
    exec "$build/bin/attnscope-paper" "$root/examples/data/shakespeare" --text "$root/examples/data/prose.txt" \
        --out "$root/out/paper"
fi
case $1 in
--model)
    [ $# -ge 2 ] || { echo "examples/run.sh: --model needs a name, such as gpt2" >&2; exit 2; }
    program_packages+=(curl)
    build attnscope-capture attnscope-report
    folder=$("$root/examples/fetch_model.sh" "$2")
    shift 2
    [ $# -gt 0 ] || set -- --text "$root/README.md"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$build/bin/attnscope-capture" "$folder" "$@" --out "$work/capture.safetensors"
    "$build/bin/attnscope-report" "$work/capture.safetensors"
    ;;
attnscope-*)
    build "$1"
    exec "$build/bin/$1" "${@:2}"
    ;;
*)
    build attnscope-report
    exec "$build/bin/attnscope-report" "$@"
    ;;
esac
