# shellcheck shell=bash
# Sourced by the scripts of tests/programs after they have set `program`: a folder of their own, complaints, refusals.
export LC_ALL=C
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
failed=0
complain() { echo "$1"; failed=1; }

# refused <status> <part of the message> <argument>...: that exit status and one line on standard error.
refused() {
    local status=$1 part=$2 found=0
    shift 2
    "$program" "$@" >"$work/out" 2>"$work/err" || found=$?
    [ "$found" -eq "$status" ] || complain "status $found for $*"
    [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$part" "$work/err" || complain "message for $*: $(cat "$work/err")"
}
