#!/usr/bin/env bash
# Every source file is laid out as .clang-format says, by clang-format 16 (others differ in small things). Status 77
# where there is none. format.sh --fix lays them out.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
format=$(command -v clang-format-16) || { echo "skipped: no clang-format-16" >&2; exit 77; }
mapfile -t files < <(find include tests examples benchmarks -name '*.hpp' -o -name '*.cpp' | sort)
[ "${#files[@]}" -gt 100 ] || { echo "only ${#files[@]} files were found" >&2; exit 1; }
[ "${1-}" != --fix ] || exec "$format" -i "${files[@]}"
"$format" --dry-run -Werror --ferror-limit=3 "${files[@]}" || { echo "tests/format.sh --fix mends it" >&2; exit 1; }
# A check that could not fail would be none.
! printf 'int  x ;\n' | "$format" --dry-run -Werror --assume-filename=include/attnscope/x.hpp 2>/dev/null
