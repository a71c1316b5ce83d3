#!/usr/bin/env bash
# pkg_config.sh <compiler> <where attnscope is installed> <version>: a program without CMake, by attnscope.pc.
set -eu
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
export PKG_CONFIG_PATH="$2/share/pkgconfig"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ "$(pkg-config --modversion attnscope)" = "$3" ]
eval "flags=($(pkg-config --cflags attnscope))" # spaces are escaped
"$1" -std=c++20 "${flags[@]}" "$(dirname "${BASH_SOURCE[0]}")/main.cpp" -o "$work/main"
"$work/main"
