#!/usr/bin/env bash
# The library's threads, and OpenMP and oneTBB where they are compiled in, give the bits of one thread.
set -u
out=$("$ATTNSCOPE_BIN/attnscope-executors" </dev/null) || {
    echo "attnscope-executors fails: $out"
    exit 1
}
[ "$(grep -Ec '^(Threads|OpenMP|oneTBB) +(the same bits|not compiled in .*)$' <<<"$out")" -eq 3 ] &&
    grep -Eq '^Threads +the same bits$' <<<"$out" || {
    echo "attnscope-executors prints: $out"
    exit 1
}
