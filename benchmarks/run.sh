#!/usr/bin/env bash
# How fast is it? Builds the benchmarks twice, for this machine and with plain AVX2, runs them, on one thread unless they
# are about threads, and prints a table each; the figures also go to build/benchmarks/*.json. Arguments go to every
# program, for example --benchmark_filter='float.*L=1024' or --benchmark_repetitions=30. Before them:
#   --in RELEASE        in a bare Debian of that name (trixie), which has newer peers; PyTorch is installed there
#   --only NAME[,NAME]  these programs, for example row-softmax,scan
# ATTNSCOPE_PEER_PYTHON=none does without PyTorch, which takes minutes whatever the filter; ATTNSCOPE_PEERS=none fetches no
# libraries of peers.
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
    want_packages libonnxruntime-dev ca-certificates # its headers, of Debian 13 and later; for curl
    configure ATTNSCOPE_BUILD_BENCHMARKS=ON -- ATTNSCOPE_BUILD_EXAMPLES=OFF ATTNSCOPE_BUILD_TESTS=OFF
    cmake "$build" >/dev/null # they may have come since
    cmake --build "$build" --parallel "$jobs" --target "${targets[@]}"
} </dev/null

# fetch_peer <package of npm> <version> <files in it>: into build/peers, unless they are there.
fetch_peer() {
    local folder="$build/peers/${1##*/}-$2"
    if [ ! -d "$folder" ]; then
        mkdir -p "$folder.part"
        if curl -sfL --max-time 300 "https://registry.npmjs.org/$1/-/${1##*/}-$2.tgz" |
            tar -xz -C "$folder.part" --strip-components=1 --wildcards "package/$3" 2>/dev/null; then
            mv "$folder.part" "$folder"
        else
            rm -rf "$folder.part"
            echo "Going on without $1 $2: npm's registry does not give it." >&2
            return 1
        fi
    fi
    echo "$folder"
}
softmax=1
if [[ ${#only[@]} -gt 0 && " ${only[*]} " != *" row-softmax "* ]]; then softmax=0; fi
if [[ $softmax -eq 1 && "$(uname -sm)" == "Linux x86_64" && ${ATTNSCOPE_PEERS-} != none ]]; then
    if peer=$(fetch_peer @node-llama-cpp/linux-x64 3.21.1 'bins/linux-x64/libggml-*.so'); then
        export ATTNSCOPE_PEER_GGML=${ATTNSCOPE_PEER_GGML-$peer/bins/linux-x64}
    fi
    if peer=$(fetch_peer onnxruntime-node 1.30.0 'bin/napi-v6/linux/x64/libonnxruntime.so.1'); then
        export ATTNSCOPE_PEER_ONNXRUNTIME=${ATTNSCOPE_PEER_ONNXRUNTIME-$peer/bin/napi-v6/linux/x64/libonnxruntime.so.1}
    fi
fi

# quietest_core: the one on which a loop takes the least time now. Neighbours on a virtual machine slow down one or the other.
quietest_core() {
    local core start time best="" least=0
    for core in $(seq 0 $((jobs < 16 ? jobs - 1 : 15))); do
        start=$(date +%s%N)
        taskset -c "$core" awk 'BEGIN { for (i = 0; i < 2000000; ++i) x += i }' 2>/dev/null || continue
        time=$(($(date +%s%N) - start))
        if [ -z "$best" ] || [ "$time" -lt "$least" ]; then best=$core least=$time; fi
    done
    echo "${best:-0}"
}

# name of the build, its folder
run_all() {
    local source name out on
    for source in "$root"/benchmarks/*.cpp; do
        name=$(basename "${source//_/-}" .cpp)
        [[ ${#only[@]} -eq 0 || " ${only[*]} " == *" $name "* ]] || continue
        out="$build/benchmarks/$1-$name.json"
        printf '\n==== %s, %s\n' "$name" "$1"
        on=()
        case $name in
        *scaling | paper-algorithms) ;; # these use several threads
        *) if command -v taskset >/dev/null; then on=(taskset -c "$(quietest_core)"); fi ;;
        esac
        OMP_NUM_THREADS=1 "${on[@]}" "$2/bin/attnscope-bench-$name" --benchmark_out="$out" --benchmark_out_format=json "${@:3}"
    done
}

mkdir -p "$build/benchmarks"
export ATTNSCOPE_HEADS=${ATTNSCOPE_HEADS-144} # of the paper's algorithms

run_all native "$build" "$@"
if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    cmake --preset release -B "$build/avx2" -DCMAKE_CXX_FLAGS="-mavx2 -mfma" -DATTNSCOPE_BUILD_BENCHMARKS=ON \
        -DATTNSCOPE_BUILD_EXAMPLES=OFF -DATTNSCOPE_BUILD_TESTS=OFF </dev/null >/dev/null
    cmake --build "$build/avx2" --parallel "$jobs" --target "${targets[@]}" </dev/null
    # oneDNN (two names, old and new) and PyTorch choose their instructions at run time: here they may not use more than we do.
    export DNNL_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
    run_all avx2 "$build/avx2" "$@"
fi

if command -v python3 >/dev/null; then python3 "$root/benchmarks/goals.py" "$build/benchmarks"; fi
