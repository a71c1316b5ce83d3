#!/usr/bin/env bash
# Heads that many processes analyse: the merged report has the bytes of one process, whatever the shards and their order;
# killed work is taken up again; what is damaged or foreign is named and not used.
set -u
program="$ATTNSCOPE_BIN/attnscope-report"
merge="$ATTNSCOPE_BIN/attnscope-merge"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

same() { cmp -s "$1" "$2" || complain "$3"; }
# whole <folder> <option>...: the report of one process, as text, JSON and CSV.
whole() {
    local folder=$1
    shift
    mkdir -p "$folder/csv"
    "$program" "$@" --json "$folder/json" --csv "$folder/csv" --rows >"$folder/text" 2>"$work/err" ||
        complain "$*: $(cat "$work/err")"
}
# merged <states> <folder>: the same by attnscope-merge.
merged() {
    mkdir -p "$2/csv"
    "$merge" "$1" --json "$2/json" --csv "$2/csv" --rows >"$2/text" 2>"$work/err" || complain "merge: $(cat "$work/err")"
    [ -s "$work/err" ] && complain "merging writes to standard error: $(cat "$work/err")"
    for file in text json csv/heads.csv csv/audit.csv csv/selection.csv csv/rows.csv csv/selection_rows.csv; do
        same "$2/$file" "$one/$file" "$3: $file is not that of one process"
    done
    for file in csv/beside.csv csv/beside_rows.csv; do
        case $3 in
        *--beside*) same "$2/$file" "$one/$file" "$3: $file is not that of one process" ;;
        *) [ ! -e "$2/$file" ] || complain "$3: there is $file" ;;
        esac
    done
}

# The synthetic heads, and options whose results are more than figures of rows.
for options in "--seed 3" "--temperature 0.7 --beside entmax:1.5 --select 1,4 --reading resultant" "--stream --layers 1 --heads 0,2-3"; do
    one="$work/one"
    # shellcheck disable=SC2086 # options are words
    whole "$one" $options
    for count in 1 2 3 7; do
        states="$work/states-$count"
        rm -rf "$states" "$work/merged"
        mkdir "$states"
        for number in $(seq "$count" | sort -R --random-source=<(yes)); do
            # shellcheck disable=SC2086
            "$program" $options --states "$states" --shard "$number/$count" --threads "$((number % 2 + 1))" >"$work/out" 2>"$work/err" ||
                complain "$options, shard $number/$count: $(cat "$work/err")"
            grep -q "^shard $number/$count: " "$work/out" || complain "a shard does not say what it did"
        done
        merged "$states" "$work/merged" "$options, $count shards"
    done
done

# Stored weights tell of themselves: what was found in them is in the states.
printf '%b' '\x50\x00\x00\x00\x00\x00\x00\x00' >"$work/weights.safetensors"
header='{"weights":{"dtype":"F16","shape":[3,4,4],"data_offsets":[0,96]}}'
printf '%s%*s' "$header" $((80 - ${#header})) '' >>"$work/weights.safetensors"
for head in 1 2 3; do # halves: 0.25, 0.5, -0.25, 0
    for row in 1 2 3 4; do printf '%b' '\x00\x34\x00\x38\x00\xb4\x00\x00' >>"$work/weights.safetensors"; done
done
one="$work/stored"
whole "$one" "$work/weights.safetensors"
mkdir "$work/stored-states"
(cd "$work" && for number in 2 1; do "$program" weights.safetensors --states stored-states --shard "$number/2" >/dev/null; done) ||
    complain "shards of stored weights fail"
sed -i "s|^input .*||" "$one/text"
"$merge" "$work/stored-states" >"$work/stored/merged" 2>"$work/err" || complain "stored weights: $(cat "$work/err")"
sed -i "s|^input .*||" "$work/stored/merged"
same "$one/text" "$work/stored/merged" "stored weights: the merged report is another"
grep -q 'negative weights' "$work/stored/merged" || complain "what was found in stored weights is lost"

# Killed in the middle, and run again: what is there is not done again, and the bytes are the same.
one="$work/killed-one"
whole "$one" --seed 5 --select 1,2,5,10,20,50,100
mkdir "$work/killed"
"$program" --seed 5 --select 1,2,5,10,20,50,100 --states "$work/killed" --threads 1 >/dev/null 2>&1 &
for _ in $(seq 3000); do
    [ "$(find "$work/killed" -name '*.state' | wc -l)" -ge 2 ] && break
    sleep 0.01
done
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
there=$(find "$work/killed" -name '*.state' | wc -l)
[ "$there" -ge 2 ] || complain "no states of killed work"
[ "$there" -eq 8 ] || refused 1 'of the states are missing, the first is' --seed 5 --select 1,2,5,10,20,50,100 --states "$work/killed" --merge
"$program" --seed 5 --select 1,2,5,10,20,50,100 --states "$work/killed" --shard 1/1 >"$work/out" 2>"$work/err" ||
    complain "killed work cannot be taken up: $(cat "$work/err")"
grep -qx "shard 1/1: 8 of 8 heads, $there were there" "$work/out" || complain "it did more or less than was missing: $(cat "$work/out")"
merged "$work/killed" "$work/merged" "killed and taken up"

# What is damaged is named and made again; what is foreign is named and stays.
state="$work/killed/b0-l1-h2.state"
cp "$state" "$work/right"
for damage in 'head -c 1000 "$work/right"' 'cat "$work/right" "$work/right"' 'echo some text' ':' 'tr a b <"$work/right"'; do
    eval "$damage" >"$state"
    "$program" --seed 5 --select 1,2,5,10,20,50,100 --states "$work/killed" --merge --json "$work/no.json" >/dev/null 2>"$work/err" &&
        complain "merged with a damaged state"
    grep -qF "1 of the states are missing, the first is $state" "$work/err" || complain "the damaged state is not missed"
    [ ! -e "$work/no.json" ] || complain "a report of a damaged state"
    "$program" --seed 5 --select 1,2,5,10,20,50,100 --states "$work/killed" --shard 1/1 >"$work/out" 2>"$work/err" ||
        complain "a damaged state stops the work"
    grep -qF "not used: $state: at byte" "$work/err" || complain "a damaged state is not named: $(cat "$work/err")"
    grep -qx 'shard 1/1: 8 of 8 heads, 7 were there' "$work/out" || complain "a damaged state counts as there"
    same "$state" "$work/right" "a damaged state is not made again"
done
cp "$work/killed/b0-l0-h0.state" "$state"
"$program" --seed 5 --select 1,2,5,10,20,50,100 --states "$work/killed" --shard 1/1 >/dev/null 2>"$work/err"
grep -qF 'this is batch 0, layer 0, head 0' "$work/err" || complain "a state of another head is used"
refused 1 'is of another version or other options: name another folder, or remove it' --seed 6 --states "$work/killed"
refused 1 'is of another version or other options' --seed 5 --select 1,2 --states "$work/killed"
same "$state" "$work/right" "a foreign state was changed"

refused 2 '--shard needs --states' --shard 1/2
refused 2 '--merge needs --states' --merge
for shard in 0/2 3/2 x 1/0 1/2/3; do refused 2 '--shard: Shard: a shard must be NUMBER/COUNT' --states "$work" --shard "$shard"; done
refused 2 '--shard: a part makes no --json' --states "$work" --shard 1/2 --json -
refused 1 "$work/nowhere: the folder for --states does not exist" --states "$work/nowhere"
refused 2 '--states: a model computes its heads while they are read' "$ATTNSCOPE_SOURCE/examples/data/shakespeare" \
    --text "$ATTNSCOPE_SOURCE/examples/data/prose.txt" --states "$work/killed"

"$program" --dry-run >"$work/out" 2>"$work/err" || complain "--dry-run: $(cat "$work/err")"
grep -qx '8 heads, 2.632e+05 pairs of a query and a key that it sees' "$work/out" || complain "--dry-run counts wrong: $(cat "$work/out")"
grep -q '^about [0-9.e-]* core hours' "$work/out" || complain "--dry-run estimates nothing"

program="$merge"
refused 1 "$work/none/run.json" "$work/none"
mkdir "$work/empty" && echo '{}' >"$work/empty/run.json"
refused 1 "$work/empty/run.json: must be what attnscope-report --states wrote" "$work/empty"
exit "$failed"
