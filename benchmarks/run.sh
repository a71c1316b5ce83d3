#!/usr/bin/env bash
# How fast is it? Builds the benchmarks twice, for this machine and with plain AVX2, runs them, on one thread unless they
# are about threads, and prints a table each; the figures also go to build/benchmarks/*.json. Arguments go to every
# program, for example --benchmark_filter='float.*L=1024' or --benchmark_repetitions=30. Before them:
#   --in RELEASE        in a bare Debian of that name (trixie), which has newer peers; PyTorch is installed there
#   --only NAME[,NAME]  these programs, for example row-softmax,scan
# ATTNSCOPE_PEER_PYTHON=none does without PyTorch, which takes minutes whatever the filter.
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"
release="" only=()
while [[ ${1-} == --in || ${1-} == --only ]]; do
    [ -n "${2-}" ] || { echo "run.sh: $1 needs a name" >&2; exit 2; }
    if [ "$1" = --in ]; then release=$2; else IFS=, read -ra only <<<"$2"; fi
    shift 2
done
for name in "${only[@]}"; do
    [ -e "$root/benchmarks/${name//-/_}.cpp" ] || { echo "run.sh: there is no benchmark $name" >&2; exit 2; }
done
if [ -n "$release" ]; then
    again=(benchmarks/run.sh)
    if [ ${#only[@]} -gt 0 ]; then again+=(--only "$(IFS=,; echo "${only[*]}")"); fi
    exec "$root/tests/other_systems.sh" --command \
        "apt-get install -y -q --no-install-recommends python3-torch python3-numpy >/dev/null; $(printf '%q ' "${again[@]}" "$@")" "$release"
fi
targets=(attnscope_benchmarks)
if [ ${#only[@]} -gt 0 ]; then targets=("${only[@]/#/attnscope-bench-}"); fi
{
    need_packages "${test_packages[@]}"
    (need_packages libdnnl-dev) || echo "Going on without oneDNN: it is not compared with."
    configure ATTNSCOPE_BUILD_BENCHMARKS=ON -- ATTNSCOPE_BUILD_EXAMPLES=OFF ATTNSCOPE_BUILD_TESTS=OFF
    cmake "$build" >/dev/null # oneDNN may have come since
    cmake --build "$build" --parallel "$jobs" --target "${targets[@]}"
} </dev/null

# name of the build, its folder
run_all() {
    local source name out on
    for source in "$root"/benchmarks/*.cpp; do
        name=$(basename "${source//_/-}" .cpp)
        [[ ${#only[@]} -eq 0 || " ${only[*]} " == *" $name "* ]] || continue
        out="$build/benchmarks/$1-$name.json"
        printf '\n==== %s, %s\n' "$name" "$1"
        on=("${pin[@]}")
        case $name in *scaling | paper-algorithms) on=() ;; esac # these use several threads
        OMP_NUM_THREADS=1 "${on[@]}" "$2/bin/attnscope-bench-$name" --benchmark_out="$out" --benchmark_out_format=json "${@:3}"
    done
}

mkdir -p "$build/benchmarks"
export ATTNSCOPE_HEADS=${ATTNSCOPE_HEADS-144} # of the paper's algorithms
pin=()
if command -v taskset >/dev/null; then pin=(taskset -c "$((jobs - 1))"); fi

run_all native "$build" "$@"
if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    cmake --preset release -B "$build/avx2" -DCMAKE_CXX_FLAGS="-mavx2 -mfma" -DATTNSCOPE_BUILD_BENCHMARKS=ON \
        -DATTNSCOPE_BUILD_EXAMPLES=OFF -DATTNSCOPE_BUILD_TESTS=OFF </dev/null >/dev/null
    cmake --build "$build/avx2" --parallel "$jobs" --target "${targets[@]}" </dev/null
    # oneDNN chooses its instructions at run time: here it may not use more than we do. (Its two names, old and new.)
    export DNNL_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
    run_all avx2 "$build/avx2" "$@"
fi

if command -v python3 >/dev/null; then python3 "$root/benchmarks/goals.py" "$build/benchmarks"; fi
