#!/usr/bin/env bash
# recipes.sh <cmake> <build> <source> <version>: the steps of packaging/vcpkg and packaging/conan, run with stand-ins for
# the two tools, leave packages that serve a project.
set -eu
cmake=$1 build=$2 source=$3 version=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
eigen=$(sed -n 's/^Eigen3_DIR:[A-Z]*=//p' "$build/CMakeCache.txt")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
consume() {
    "$cmake" -S "$source/tests/consumer/find_package" -B "$work/consumer" -Dattnscope_DIR="$1" -DEigen3_DIR="$eigen" >/dev/null
    "$cmake" --build "$work/consumer" >/dev/null
    "$work/consumer/consumer"
    rm -r "$work/consumer"
}
"$cmake" -DPORT="$source/packaging/vcpkg/attnscope" -DWORK="$work" -DEIGEN="$eigen" -DVERSION="$version" \
    -P "$here/stubs/vcpkg.cmake"
[ -s "$work/packages/share/attnscope/copyright" ] && [ ! -e "$work/packages/share/doc" ]
consume "$work/packages/share/attnscope"
command -v python3 >/dev/null || { echo "skipped: no python3 for Conan's recipe"; exit 77; }
prefix=${eigen%/share/*} prefix=${prefix%/lib/*}
python3 "$here/stubs/conan/run.py" "$source/packaging/conan/conanfile.py" "$work/conan" "$cmake" "$prefix" "$version"
consume "$work/conan/package/share/cmake/attnscope"
