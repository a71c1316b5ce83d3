#!/usr/bin/env bash
# debian_package.sh <cmake> <build> <source> <version>: cpack's Debian package, unpacked, serves a project; lintian finds
# no error where it is installed.
set -eu
cmake=$1 build=$2 source=$3 version=$4
for tool in dpkg-deb gzip; do command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DEBEMAIL=tests@debian.org "$cmake" -S "$source" -B "$work/build" -DATTNSCOPE_BUILD_TESTS=OFF \
    -DATTNSCOPE_BUILD_EXAMPLES=OFF -DATTNSCOPE_BUILD_BENCHMARKS=OFF -DATTNSCOPE_FETCH=OFF \
    -DEigen3_DIR="$(sed -n 's/^Eigen3_DIR:[A-Z]*=//p' "$build/CMakeCache.txt")" >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
(cd "$work" && "$(dirname "$(command -v "$cmake")")/cpack" -G DEB --config build/CPackConfig.cmake -B packed >"$work/log" 2>&1) ||
    { cat "$work/log"; exit 1; }
package=$work/packed/libattnscope-dev_$version-1_all.deb
field() { dpkg-deb -f "$package" "$1"; }
[ "$(field Package) $(field Version) $(field Architecture)" = "libattnscope-dev $version-1 all" ]
[[ $(field Depends) == *libeigen3-dev* && $(field Maintainer) == *"<tests@debian.org>" ]]
dpkg-deb -x "$package" "$work/root"
grep -q "Permission is hereby granted" "$work/root/usr/share/doc/libattnscope-dev/copyright"
"$cmake" -S "$source/tests/consumer/find_package" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/root/usr" >/dev/null
"$cmake" --build "$work/consumer" >/dev/null
"$work/consumer/consumer"
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error "$package"
else
    echo "lintian is not installed: not asked"
fi
