#!/usr/bin/env bash
# The recipes of examples/cluster: GNU parallel for real where it is, Slurm and Kubernetes by the variables that they set.
# Each makes the states of the whole report.
set -u
program="$ATTNSCOPE_BIN/attnscope-merge"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"
export ATTNSCOPE_REPORT="$ATTNSCOPE_BIN/attnscope-report"
recipes="$ATTNSCOPE_SOURCE/examples/cluster"

"$ATTNSCOPE_REPORT" --seed 4 --parts selections --json "$work/right.json" >/dev/null || complain "the report fails"
merged() {
    "$program" "$1" --json "$work/merged.json" >/dev/null 2>"$work/err" || complain "$2: $(cat "$work/err")"
    cmp -s "$work/merged.json" "$work/right.json" || complain "$2: the report is not that of one process"
    rm -f "$work/merged.json"
}

for task in 7 5 6; do # an array that begins at 5
    SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_MIN=5 SLURM_ARRAY_TASK_COUNT=3 SLURM_CPUS_PER_TASK=2 \
        "$recipes/slurm_array.sh" "$work/slurm" --seed 4 --parts selections >"$work/out" 2>&1 || complain "Slurm: $(cat "$work/out")"
    grep -q "^shard $((task - 4))/3: " "$work/out" || complain "Slurm: another shard: $(cat "$work/out")"
done
merged "$work/slurm" Slurm
env -u SLURM_ARRAY_TASK_ID "$recipes/slurm_array.sh" "$work/slurm" >/dev/null 2>"$work/err" && complain "Slurm: runs outside of an array"
grep -q 'sbatch --array' "$work/err" || complain "Slurm: does not say what is missing: $(cat "$work/err")"

for index in 0 3 1 2; do
    JOB_COMPLETION_INDEX=$index "$recipes/kubernetes_job.sh" "$work/kubernetes" 4 --seed 4 --parts selections >"$work/out" 2>&1 ||
        complain "Kubernetes: $(cat "$work/out")"
done
merged "$work/kubernetes" Kubernetes
env -u JOB_COMPLETION_INDEX "$recipes/kubernetes_job.sh" "$work/kubernetes" 4 >/dev/null 2>"$work/err" &&
    complain "Kubernetes: runs outside of a job"
completions=$(sed -n 's/^  completions: //p' "$recipes/kubernetes_job.yaml")
grep -q "\"$completions\"" "$recipes/kubernetes_job.yaml" || complain "Kubernetes: the job has another number of shards than its command"

if command -v parallel >/dev/null && parallel --version 2>/dev/null | grep -q GNU; then
    "$recipes/gnu_parallel.sh" "$work/parallel" 5 --seed 4 --parts selections >"$work/out" 2>&1 </dev/null ||
        complain "GNU parallel: $(cat "$work/out")"
    [ "$(grep -c '^shard ' "$work/out")" -eq 5 ] || complain "GNU parallel: not five shards"
    merged "$work/parallel" "GNU parallel"
    "$recipes/gnu_parallel.sh" "$work/parallel" 5 --seed 5 >"$work/out" 2>&1 </dev/null && complain "GNU parallel: hides an error"
else
    echo "skipped: GNU parallel is not installed"
fi
for recipe in gnu_parallel slurm_array kubernetes_job; do
    "$recipes/$recipe.sh" >/dev/null 2>"$work/err" && complain "$recipe.sh takes no folder"
    grep -q "$recipe.sh: expected STATES" "$work/err" || complain "$recipe.sh does not say what it takes"
done

# The simulated schedule: 3 equal heads on 2 ranks, one of which does two; split in blocks of a size, they wait less.
python3 "$recipes/schedule.py" --heads 3 --length 4096 --ranks 1,2 --query-block 512 --key-block 512 >"$work/out" || complain "schedule.py fails"
awk -F '|' 'NR == 3 && $5 + 0 == 0 && $6 + 0 == 36 { one = 1 } NR == 4 && $5 + 0 == 25 && $8 + 0 < 5 { two = 1 }
            END { exit !(one && two && NR == 4) }' "$work/out" || complain "another schedule: $(cat "$work/out")"
python3 "$recipes/schedule.py" --ranks 0 >/dev/null 2>&1 && complain "schedule.py takes 0 ranks"
exit "$failed"
