#!/usr/bin/env bash
# attnscope-report-mpi: the bytes of one process on 1, 2 and 4 ranks; a killed rank ends the run, and what it left is taken up;
# an error is told once.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
mpi="$ATTNSCOPE_BIN/attnscope-report-mpi"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
[ -x "$mpi" ] && command -v mpirun >/dev/null || { echo "skipped: there is no MPI"; exit 77; }
# More ranks than cores, and as root in containers, where mpirun has to be told so.
launch=(mpirun --oversubscribe --allow-run-as-root)
"${launch[@]}" -np 1 true >/dev/null 2>&1 </dev/null || launch=(mpirun)
"${launch[@]}" -np 2 true >/dev/null 2>"$work/err" </dev/null ||
    { echo "skipped: mpirun does not run here: $(grep -m 1 . "$work/err")"; exit 77; }
ranks() { timeout 300 "${launch[@]}" -np "$@" </dev/null; }

# Units, analyses and errors of ranks, by tests/mpi/main.cpp.
if [ -x "$ATTNSCOPE_BIN/attnscope_mpi_tests" ]; then
    for n in 1 2 4; do
        ranks "$n" "$ATTNSCOPE_BIN/attnscope_mpi_tests" >"$work/out" 2>&1 || complain "tests on $n ranks: $(cat "$work/out")"
        grep -qx 'all of it holds' "$work/out" || complain "tests on $n ranks do not come to the end: $(cat "$work/out")"
    done
fi

options=(--seed 3 --select 1,5 --beside sigmoid --rows)
"$program" "${options[@]}" --json "$work/one.json" >"$work/one.txt" || complain "one process fails"
for n in 1 2 4; do
    ranks "$n" "$mpi" "${options[@]}" --json "$work/many.json" >"$work/many.txt" 2>"$work/err" || complain "$n ranks: $(cat "$work/err")"
    cmp -s "$work/many.json" "$work/one.json" || complain "$n ranks: another JSON than that of one process"
    cmp -s "$work/many.txt" "$work/one.txt" || complain "$n ranks: another text than that of one process"
    rm -f "$work/many.json"
done

# Killed in the middle: the run ends, and the next one does what is missing.
options=(--seed 9 --select 1,2,5,10,20,50,100)
"$program" "${options[@]}" --json "$work/one.json" >/dev/null || complain "one process fails"
mkdir "$work/states"
ranks 2 "$mpi" "${options[@]}" --states "$work/states" >/dev/null 2>"$work/err" &
for _ in $(seq 3000); do
    [ "$(find "$work/states" -name '*.state' | wc -l)" -ge 2 ] && break
    sleep 0.01
done
victim=$(pgrep -f "attnscope-report-mpi.*$work/states" | tail -n 1)
[ -n "$victim" ] && kill -9 "$victim" 2>/dev/null
wait $!
status=$?
there=$(find "$work/states" -name '*.state' | wc -l)
[ "$status" -ne 0 ] || [ "$there" -eq 8 ] || complain "a killed rank does not end the run"
[ "$there" -ge 2 ] || complain "killed ranks leave no states"
touch -d '1 hour ago' "$work"/states/*.state
ranks 2 "$mpi" "${options[@]}" --states "$work/states" --json "$work/many.json" >/dev/null 2>"$work/err" ||
    complain "killed work is not taken up: $(cat "$work/err")"
cmp -s "$work/many.json" "$work/one.json" || complain "killed and taken up: another JSON"
[ "$(find "$work/states" -name '*.state' -mmin +30 | wc -l)" -eq "$there" ] || complain "what was there is made again"

# An error of all ranks is told once.
ranks 2 "$mpi" "$work/missing.safetensors" >/dev/null 2>"$work/err" && complain "a missing file is none"
[ "$(grep -c '^attnscope-report-mpi: ' "$work/err")" -eq 1 ] || complain "an error is not told once: $(cat "$work/err")"
grep -q 'rank 0: .*missing.safetensors' "$work/err" || complain "the error has no name: $(cat "$work/err")"
ranks 2 "$mpi" --temperature 0 >/dev/null 2>"$work/err" && complain "temperature 0 is taken"
[ "$(grep -c '^attnscope-report-mpi: --temperature must be > 0' "$work/err")" -eq 1 ] || complain "wrong use is not told once"

# One long head in blocks: the figures of one process on 1, 2 and 4 ranks.
long="$ATTNSCOPE_BIN/attnscope-long-context"
options=(--length 3000 --dimension 16 --output --query-block 500 --key-block 700)
figures() { sed '/^time/d; /^memory/d'; } # what does not depend on the machine
"$long" "${options[@]}" 2>/dev/null | figures >"$work/one.txt"
grep -q '^rows      3000 normal' "$work/one.txt" || complain "one process has no long context"
for n in 1 2 4; do
    ranks "$n" "$long-mpi" "${options[@]}" 2>"$work/err" | figures >"$work/many.txt"
    cmp -s "$work/many.txt" "$work/one.txt" || complain "$n ranks: other figures of a long context $(cat "$work/err")"
done
ranks 2 "$long-mpi" "$work/missing.safetensors" >/dev/null 2>"$work/err" && complain "a missing file is none"
grep -q 'rank 0: .*missing.safetensors' "$work/err" || complain "the error has no name: $(cat "$work/err")"
exit "$failed"
