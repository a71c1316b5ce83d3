#!/usr/bin/env bash
# What the run.sh scripts share: compilers are as many as the memory feeds, and who may not install is told what to type.
set -u
program="$ATTNSCOPE_SOURCE/tests/other_systems.sh"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

setup() { bash -c '. "$ATTNSCOPE_SOURCE/cmake/setup.sh"; '"$1"; }

# jobs <processors> <KB> <expected>
jobs() { [ "$(setup "job_count $1 $2")" = "$3" ] || complain "jobs on $1 processors with $2 KB: not $3"; }
jobs 2 16777216 2
jobs 64 8388608 5
jobs 64 134217728 64
jobs 8 524288 1
[ "$(CMAKE_BUILD_PARALLEL_LEVEL=7 setup 'echo "$jobs"')" = 7 ] || complain "CMake's own variable does not count"
setup 'free_memory' | grep -Eqx '[1-9][0-9]{3,}' || complain "memory: $(setup free_memory)"

# A user without the right to install, on a system that lacks two packages.
mkdir "$work/bin"
printf '#!/bin/sh\necho 1000\n' >"$work/bin/id"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/sudo"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/dpkg-query"
chmod +x "$work"/bin/*
status=0
PATH="$work/bin:$PATH" setup 'need_packages libfmt-dev catch2' >"$work/out" 2>&1 || status=$?
[ "$status" -eq 1 ] || complain "status $status where packages are missing"
for line in 'apt-get update && apt-get install -y --no-install-recommends libfmt-dev catch2' \
    'sudo apt-get update && sudo apt-get install -y --no-install-recommends libfmt-dev catch2'; do
    grep -Eq "^ *$line\$" "$work/out" || complain "it does not say '$line': $(cat "$work/out")"
done

# What a system does not offer is not missed; what it offers is asked for as the others are.
printf '#!/bin/sh\nprintf "%%s:\\n  Installed: (none)\\n  Candidate: (none)\\n" "$2"\n' >"$work/bin/apt-cache"
chmod +x "$work/bin/apt-cache"
PATH="$work/bin:$PATH" setup 'want_packages libllama-dev' >"$work/out" 2>&1 && [ ! -s "$work/out" ] ||
    complain "a package that is not offered is asked for: $(cat "$work/out")"
sed -i 's/Candidate: (none)/Candidate: 1:0.7/' "$work/bin/apt-cache"
PATH="$work/bin:$PATH" setup 'want_packages libllama-dev' >"$work/out" 2>&1 && complain "a package that is offered is not asked for"
grep -q 'These packages are missing: libllama-dev' "$work/out" || complain "it does not name the package: $(cat "$work/out")"

refused 2 "got '--bogus'" --bogus
refused 2 "--command needs a command" --command
PATH="$work/bin:$PATH" refused 77 "needs root"
exit "$failed"
