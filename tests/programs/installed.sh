#!/usr/bin/env bash
# The programs as cmake --install leaves them: they run from a prefix, have man pages without a warning and completion
# of bash that knows their options; packed for Debian they find lintian's consent.
set -eu
build=$(dirname "$ATTNSCOPE_BIN")
cmake=$(sed -n 's/^CMAKE_COMMAND:INTERNAL=//p' "$build/CMakeCache.txt")
grep -q '^ATTNSCOPE_INSTALL_PROGRAMS:[A-Z]*=ON' "$build/CMakeCache.txt" ||
    { echo "skipped: ATTNSCOPE_INSTALL_PROGRAMS is off"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "$*"; exit 1; }
prefix="$work/a prefix"
"$cmake" --install "$build" --component programs --prefix "$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
bin="$prefix/bin"
for name in report merge; do
    [ -x "$bin/attnscope-$name" ] || fail "attnscope-$name is not installed: $(cat "$work/log")"
done
[ ! -e "$prefix/include" ] || fail "the component has headers, too"
# What is not built is named.
for program in "$bin"/*; do
    ! grep -q "^-- Not built, so not installed: $(basename "$program")$" "$work/log" || fail "$program is there"
done

# attnscope-merge finds attnscope-report beside it, and on PATH.
mkdir "$work/states"
(cd "$work" && "$bin/attnscope-report" --states states --threads 1 --parts statistics >one &&
    "$bin/attnscope-merge" states >two && cmp one two)
mkdir "$work/alone" && cp "$bin/attnscope-merge" "$work/alone"
(cd "$work" && PATH="$bin:$PATH" alone/attnscope-merge states >two && cmp one two)
status=0
(cd "$work" && PATH="$work/alone" alone/attnscope-merge states >two 2>error) || status=$?
[ "$status" = 1 ] && grep -q "attnscope-report: cannot be run" "$work/error" || fail "no word about a missing report"

# Each has --help, --version and a page.
version=$("$bin/attnscope-report" --version | sed 's/.* //')
if command -v help2man >/dev/null && ! grep -q '^ATTNSCOPE_SANITIZE:[A-Z]*=.' "$build/CMakeCache.txt"; then
    for program in "$bin"/*; do
        name=$(basename "$program")
        page="$prefix/share/man/man1/$name.1"
        [ -f "$page" ] || fail "$name has no man page"
        [[ $name != *-mpi ]] || continue # the page is that of the program without MPI
        [ "$("$program" --version)" = "$name $version" ] || fail "$name --version"
        for section in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS'; do
            grep -qE "^\.SH \"?$section\"?$" "$page" || fail "$page has no $section"
        done
        for option in $("$program" --help | sed -nE 's/^  (-[^ ]+).*/\1/p' | tr , ' '); do
            sed 's/\\//g' "$page" | grep -qE -- "(^|[ ,B])$option([ ,=]|$|f)" || fail "$page lacks $option"
        done
        if command -v man >/dev/null; then
            warnings=$(MANWIDTH=80 man --warnings -l "$page" 2>&1 >/dev/null)
            [ -z "$warnings" ] || fail "$page: $warnings"
        fi
    done
else
    echo "help2man is not installed, or sanitizers are on: no man pages"
fi

# completed <word>...: what bash offers for the last word.
completed() {
    PATH="$bin:$PATH" bash --norc --noprofile -c '
        source "$1"
        shift
        complete -p "$1" >/dev/null || exit 1
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _attnscope "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf "%s\n" "${COMPREPLY[@]}"' bash "$prefix/share/bash-completion/completions/$1" "$@"
}
[ "$(completed attnscope-merge -- | sort | tr '\n' ' ')" = "--csv --help --json --qk-clip --rows --version " ] ||
    fail "completion of attnscope-merge: $(completed attnscope-merge --)"
[ "$(completed attnscope-report --norm | tr '\n' ' ')" = "--normalizer --normalise-weights " ] || fail "--norm"
[ "$(completed attnscope-report x --no-s)" = --no-stream ] || fail "--no-s"
[ -z "$(completed attnscope-report --nothing-like-it)" ] || fail "an option that is none"
[ -z "$(completed attnscope-report x)" ] || fail "files are the shell's"
[ -z "$(completed attnscope-report --json -)" ] || fail "the value of --json may be -"
[ "$(completed attnscope-report --rows --js)" = --json ] || fail "a flag has no value"
for program in "$bin"/*; do
    name=$(basename "$program")
    [[ $name == *-mpi ]] || completed "$name" -- | grep -qx -- --help || fail "$name: no completion"
done

# The two packages, of the programs that are here.
command -v dpkg-shlibdeps >/dev/null || { echo "no dpkg-shlibdeps: not packed"; exit 0; }
there=$(cd "$bin" && printf '%s;' *)
pack() { # <programs>
    (cd "$work" && "$(dirname "$cmake")/cpack" -G DEB --config "$build/CPackConfig.cmake" -B packed \
        -D "CPACK_COMPONENTS_ALL=development;programs" -D "CPACK_ATTNSCOPE_PROGRAMS=$1" \
        -D "CPACK_PACKAGE_CONTACT=The attnscope authors <tests@debian.org>" >log 2>&1)
}
pack "${there%;}" || { cat "$work/log"; exit 1; }
tools=$(echo "$work"/packed/attnscope-tools_*.deb)
[[ $(dpkg-deb -f "$tools" Depends) == *libc6* ]] || fail "no dependencies of the programs"
dpkg-deb -c "$tools" >"$work/of_tools"
dpkg-deb -c "$work"/packed/libattnscope-dev_*.deb >"$work/of_headers"
grep -q './usr/bin/attnscope-report$' "$work/of_tools" || fail "no program in the package"
! grep -q '/include/' "$work/of_tools" || fail "headers in the package of programs"
grep -q 'attnscope.hpp$' "$work/of_headers" || fail "no headers in their package"
! grep -q '/bin/' "$work/of_headers" || fail "programs in the package of headers"
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error "$work"/packed/*.deb
fi
! pack "${there}attnscope-none" || fail "a program that is missing was packed"
grep -q "attnscope-tools lacks attnscope-none" "$work/log" || { cat "$work/log"; exit 1; }
