#!/usr/bin/env bash
# The long matrix: builds the examples and all tests but the consumers in each configuration below
# (build/all/<name>) and runs them, reports the umbrella's compile time, and ends with a table. Status 0 when all
# passed. Two are for other processors, by qemu: aarch64 (NEON; unit, property and reference tests: hours) and s390x
# (big-endian; the tests of files); Debian: g++-aarch64-linux-gnu, g++-s390x-linux-gnu, qemu-user-static.
#   tests/all_configurations.sh                  everything
#   tests/all_configurations.sh asan row_major   these only
#   tests/all_configurations.sh --list           the names
. "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

# Assertions of Eigen and the standard library stay on except where optimisation is the point.
checked=(-DCMAKE_BUILD_TYPE=Debug "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1 -D_GLIBCXX_ASSERTIONS")
names=(asan tsan clang row_major no_vectorize nan_initialized no_resizing avx2 sse2 aarch64 s390x tidy compile_time)

settings_of() { # sets the array "settings"
    case $1 in
    asan) settings=("${checked[@]}" "-DATTNSCOPE_SANITIZE=address,undefined") ;;
    tsan) settings=("${checked[@]}" -DATTNSCOPE_SANITIZE=thread) ;;
    clang) settings=(-DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++) ;;
    row_major) settings=("${checked[@]}" -DATTNSCOPE_DEFINITIONS=EIGEN_DEFAULT_TO_ROW_MAJOR) ;;
    no_vectorize) settings=("${checked[@]}" -DATTNSCOPE_DEFINITIONS=EIGEN_DONT_VECTORIZE) ;;
    nan_initialized) settings=("${checked[@]}" -DATTNSCOPE_DEFINITIONS=EIGEN_INITIALIZE_MATRICES_BY_NAN) ;;
    no_resizing) settings=("${checked[@]}" -DATTNSCOPE_DEFINITIONS=EIGEN_NO_AUTOMATIC_RESIZING) ;;
    avx2) settings=(-DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=-mavx2 -mfma") ;;
    sse2) settings=(-DCMAKE_BUILD_TYPE=Release) ;;
    tidy) settings=(-DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=clang++ "-DCMAKE_CXX_CLANG_TIDY=clang-tidy;--quiet") ;;
    *) return 1 ;;
    esac
}

# A tool that the machine lacks, or an instruction set: the configuration is skipped, and the table says so.
lacking() {
    case $1 in
    clang) command -v clang++ >/dev/null || echo "no clang++" ;;
    tidy) command -v clang++ >/dev/null && command -v clang-tidy >/dev/null || echo "no clang-tidy" ;;
    avx2) grep -q avx2 /proc/cpuinfo || echo "no AVX2" ;;
    aarch64 | s390x)
        command -v "$1-linux-gnu-g++" >/dev/null || echo "no $1-linux-gnu-g++"
        command -v "qemu-$1-static" >/dev/null || echo "no qemu-$1-static"
        [ -e /usr/include/catch2/catch.hpp ] || echo "Catch2 2 is needed, which has no library"
        ;;
    esac
}

# foreign <processor>: without CMake, which would find this machine's libraries. Headers alone are needed.
foreign() {
    local folder="$build/all/$1" tests library
    mkdir -p "$folder/include" && rm -f "$folder"/*.o
    for library in catch2 boost nlohmann fmt; do ln -sfn "/usr/include/$library" "$folder/include/$library"; done
    if [ "$1" = s390x ]; then
        tests=("$root"/tests/unit/io/*.cpp)
    else
        mapfile -t tests < <(find "$root/tests/unit" "$root/tests/property" "$root/tests/reference" -name '*.cpp' \
            ! -path '*/io/*' ! -path '*/programs/*' ! -path '*/runtime/*' | sort)
    fi
    printf '%s\n' "${tests[@]}" "$root/tests/support/main.cpp" |
        FOLDER=$folder ROOT=$root COMPILER=$1-linux-gnu-g++ xargs -P "$jobs" -I FILE bash -c '
            name=${1#"$ROOT"/tests/}
            "$COMPILER" -std=c++20 -O1 -w -DFMT_HEADER_ONLY "-I$ROOT/include" "-I$ROOT/tests" "-I$ROOT/examples" \
                "-I$FOLDER/include" -I/usr/include/eigen3 -c "$1" -o "$FOLDER/${name//\//.}.o"' _ FILE || return 1
    "$1-linux-gnu-g++" -static "$folder"/*.o -lpthread -o "$folder/tests" && (cd "$root" && "qemu-$1-static" "$folder/tests")
}

check() {
    local folder="$build/all/$1" settings
    case $1 in aarch64 | s390x) foreign "$1"; return ;; esac
    settings_of "$1"
    cmake -G Ninja -S "$root" -B "$folder" -DATTNSCOPE_WERROR=ON -DATTNSCOPE_BUILD_BENCHMARKS=OFF \
        "${settings[@]}" || return 1
    if [ "$1" = tidy ]; then # every header, none of the tests; all findings at once
        cmake --build "$folder" --parallel "$jobs" --target attnscope_header_tests -- -k 0
        return
    fi
    cmake --build "$folder" --parallel "$jobs" || return 1
    ctest --test-dir "$folder" --output-on-failure --no-tests=error --parallel "$jobs" --label-exclude consumer
}

# What including the library costs, best of three: reported, never judged (goal: 3 s at most).
compile_time() {
    local compiler include=("-I$root/include") eigen source="$build/all/umbrella.cpp" start end best
    eigen=$(dirname "$(find /usr/include /usr/local/include -path '*/Eigen/Core' 2>/dev/null | head -1)")/..
    mkdir -p "$build/all"
    echo '#include <attnscope/attnscope.hpp>' >"$source"
    for compiler in g++ clang++; do
        command -v $compiler >/dev/null || continue
        best=
        for _ in 1 2 3; do
            start=$(date +%s%N)
            $compiler -std=c++20 -O2 "${include[@]}" -isystem "$eigen" -c "$source" -o /dev/null || return 1
            end=$(date +%s%N)
            if [ -z "$best" ] || [ $((end - start)) -lt "$best" ]; then best=$((end - start)); fi
        done
        echo "umbrella, $compiler -O2: $((best / 1000000)) ms"
    done
}

if [ "${1:-}" = --list ]; then
    printf "%s\n" "${names[@]}"
    exit
fi
for name; do
    case " ${names[*]} " in
    *" $name "*) ;;
    *)
        echo "no configuration is called '$name'; there are: ${names[*]}" >&2
        exit 2
        ;;
    esac
done
need_packages "${test_packages[@]}"

table="" failed=0
[ $# -gt 0 ] || set -- "${names[@]}"
for name; do
    printf '\n== %s\n' "$name"
    reason=$(lacking "$name")
    start=$SECONDS
    if [ -n "$reason" ]; then
        result="skipped: $reason"
    elif [ "$name" = compile_time ]; then
        if times=$(compile_time); then result=$times; else result=FAILED failed=1; fi
    elif check "$name" </dev/null; then
        result=passed
    else
        result=FAILED failed=1
    fi
    table+=$(printf '%-16s %5d s  %s' "$name" $((SECONDS - start)) "${result//$'\n'/; }")$'\n'
done
printf '\n%s' "$table"
exit $failed
