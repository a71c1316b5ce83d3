#!/usr/bin/env bash
# run.sh [SECONDS]: builds the fuzz targets with clang's libFuzzer, under AddressSanitizer and
# UndefinedBehaviorSanitizer, into build/fuzz/, and runs each for SECONDS (60) on its kept corpus and what grows from
# it. Prints executions and findings a target. Status 1 when there is a finding: its input is named then, and belongs
# into tests/fuzz/corpus/TARGET once the fault is mended. Status 77 where clang or its fuzzer is not installed.
# ATTNSCOPE_FUZZ_TARGETS="safetensors numpy": only these.
. "$(dirname "${BASH_SOURCE[0]}")/../../cmake/setup.sh"
seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "SECONDS must be a whole number from 1 on, got $seconds" >&2; exit 2; }
clang=${ATTNSCOPE_CLANG:-clang++}
source=$root/tests/fuzz out=$build/fuzz
read -ra targets <<<"${ATTNSCOPE_FUZZ_TARGETS:-safetensors numpy capture states normalizer config tokenizer weights}"

mkdir -p "$out/findings"
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
    "$clang" -fsanitize=fuzzer,address,undefined -x c++ - -o "$out/probe" 2>"$out/probe.log"; then
    echo "skipped: no clang++ with libFuzzer (Debian: clang and libclang-rt-dev); see $out/probe.log" >&2
    exit 77
fi

eigen=$(dirname "$(find /usr/include /usr/local/include -path '*/Eigen/Core' 2>/dev/null | head -1)")/..
flags=(-std=c++20 -O1 -g1 -fno-sanitize-recover=undefined -DFMT_HEADER_ONLY -isystem "$eigen"
       -I"$root/include" -I"$root/examples" -I"$root/tests")
launcher=()
if command -v ccache >/dev/null; then launcher=(ccache); fi

compile() { # <source> <object>
    local sanitizers=fuzzer-no-link,address,undefined
    # Eigen's products and all normalisers under all three take minutes to compile, and are not what is fuzzed here.
    case $1 in */forward.cpp | */named_normalizer.cpp) sanitizers=address ;; esac
    ${launcher[@]+"${launcher[@]}"} "$clang" "${flags[@]}" -fsanitize=$sanitizers -c "$1" -o "$2"
}
objects_of() { # the parts of the examples that a target needs
    case $1 in
    config) echo models/config models/parameters support/named_normalizer ;;
    tokenizer) echo models/tokenizer ;;
    weights) echo models/config models/parameters models/forward support/named_normalizer ;;
    esac
}

# Compiles and links what is older than its sources, as many at once as there are processors.
declare -A wanted
for target in "${targets[@]}"; do
    [ -f "$source/$target.cpp" ] || { echo "no fuzz target is called '$target'" >&2; exit 2; }
    wanted[$target]=$source/$target.cpp
    for part in $(objects_of "$target"); do wanted[${part//\//_}]=$root/examples/$part.cpp; done
done
start=$SECONDS
declare -A running
for name in "${!wanted[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    compile "${wanted[$name]}" "$out/$name.o" &
    running[$name]=$!
done
for name in "${!running[@]}"; do
    wait "${running[$name]}" || { echo "${wanted[$name]} does not compile" >&2; exit 1; }
done
for target in "${targets[@]}"; do
    parts=()
    for part in $(objects_of "$target"); do parts+=("$out/${part//\//_}.o"); done
    libraries=()
    if [ "$target" = tokenizer ]; then libraries=(-lpcre2-8); fi
    "$clang" -fsanitize=fuzzer,address,undefined "$out/$target.o" ${parts[@]+"${parts[@]}"} \
        ${libraries[@]+"${libraries[@]}"} -o "$out/$target"
done
echo "built ${#targets[@]} targets in $((SECONDS - start)) s"

# The files of a run lie in memory where the system has such a folder.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=0:${ASAN_OPTIONS-}
fuzz() { # <target>
    local found=$out/findings/$1-
    mkdir -p "$out/corpus/$1" "$source/corpus/$1"
    "$out/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
        -dict="$source/words.dict" -artifact_prefix="$found" "$out/corpus/$1" "$source/corpus/$1" \
        >"$out/$1.log" 2>&1 </dev/null
}
declare -A status=()
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    fuzz "$target" &
    running[$target]=$!
done
failed=0
printf '%-12s %12s %9s  %s\n' target executions corpus findings
for target in "${targets[@]}"; do
    result=none
    if ! wait "${running[$target]}"; then
        failed=1
        result=$(sed -n 's/.*Test unit written to //p' "$out/$target.log" | tail -1)
        result="${result:-none written} (log: $out/$target.log)"
    fi
    printf '%-12s %12s %9s  %s\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$target.log" | tail -1)" \
        "$(find "$out/corpus/$target" -type f | wc -l)" "$result"
done
exit $failed
