#!/usr/bin/env bash
# attnscope-paper: a folder with a page, pictures and tables; the same for any number of threads; nothing half-written when it
# is interrupted; refusals.
set -u
program="$ATTNSCOPE_BIN/attnscope-paper"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

cat >"$work/config.json" <<'END'
{"model_type": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 256, "vocab_size": 100}
END
small=(--random-weights "$work/config.json" --length 40)
pictures=()
command -v gnuplot >/dev/null || { pictures=(--no-pictures); echo "without gnuplot: pictures are not checked"; }

"$program" "${small[@]}" ${pictures[@]+"${pictures[@]}"} --out "$work/one" --threads 1 >"$work/out" 2>"$work/err" ||
    complain "it fails: $(cat "$work/err")"
[ -s "$work/err" ] && complain "it writes to standard error: $(cat "$work/err")"
grep -q '^No sharp statement is violated.$' "$work/out" || complain "no audit, or a sharp statement is violated"
grep -q '^rows with no more than N keys.* at N = 5 these are 40 of 320 rows$' "$work/out" || complain "short rows are not counted"
grep -q '^rows of Algorithm 4.*: 24: the last of each head and 16 seeded ones$' "$work/out" || complain "sampled rows are not counted"
for file in report.html results.json means.csv curves.csv critical.csv separability.csv sensitivity.csv heads.csv audit.csv \
    findings.csv; do
    [ -s "$work/one/$file" ] || complain "there is no $file"
done
for file in "$work"/one/*; do # none of them is taken from who reads it
    refused 2 "--out $file is an input" "${small[@]}" ${pictures[@]+"${pictures[@]}"} --tokens "$file" --out "$work/one"
done
grep -q '"schema": "attnscope.paper/1"' "$work/one/results.json" || complain "results.json has no schema"
[ "$(wc -l <"$work/one/heads.csv")" -eq 9 ] || complain "heads.csv does not have one line for each of 8 heads"
for text in 'Can these heads still select' 'whose weights nobody trained' 'The audit' 'Do the plans hold' '</html>'; do
    grep -q "$text" "$work/one/report.html" || complain "the page has no: $text"
done
grep -qE '(src|href)="(http:|//|[a-z]+\.(css|js|svg|png))' "$work/one/report.html" && complain "the page needs other files"
if [ ${#pictures[@]} -eq 0 ]; then
    for name in concentration distance_length distance_count critical_count separable gradient precision_recall heads plan; do
        grep -q '</svg>' "$work/one/$name.svg" || complain "$name.svg is no picture"
        [ "$(head -c 4 "$work/one/$name.png" | tail -c 3)" = PNG ] || complain "$name.png is no picture"
    done
    [ "$(grep -c 'src="data:image/svg+xml;base64,' "$work/one/report.html")" -eq 9 ] || complain "the page does not hold 9 pictures"
fi

# Threads change nothing; a second run into the same folder replaces it.
"$program" "${small[@]}" --no-pictures --out "$work/three" --threads 3 >/dev/null 2>&1 || complain "three threads fail"
for file in "$work/three"/*.csv; do
    cmp -s "$file" "$work/one/${file##*/}" || complain "threads change ${file##*/}"
done
"$program" "${small[@]}" --no-pictures --out "$work/three" --seed 2 >/dev/null 2>&1 || complain "a second run fails"
cmp -s "$work/three/curves.csv" "$work/one/curves.csv" && complain "the folder of before is still there"

# Every choice changes what it should.
for choice in "--vectors hidden" "--vectors contribution" "--unit-vectors everywhere" "--reading resultant" "--short-rows zero" \
    "--radius 0.2" "--level 0.2"; do
    # shellcheck disable=SC2086
    "$program" "${small[@]}" --no-pictures --out "$work/choice" $choice >"$work/out" 2>&1 || complain "$choice fails"
    cat "$work/choice"/*.csv | cmp -s - <(cat "$work/one"/*.csv) && complain "$choice changes nothing"
done

# --html: the page to explore, with the experiments on it; the same for any number of threads.
"$program" "${small[@]}" ${pictures[@]+"${pictures[@]}"} --out "$work/with" --html "$work/heads.html" --threads 1 >"$work/out" \
    2>"$work/err" || complain "--html fails: $(cat "$work/err")"
[ -s "$work/err" ] && complain "--html: writes to standard error: $(cat "$work/err")"
grep -q "^          $work/heads.html\$" "$work/out" || complain "--html: the page is not named"
[ "$(grep -c '<section id="experiments"' "$work/heads.html")" -eq 1 ] || complain "--html: no experiments on the page"
grep -q 'random tokens of seed 1; nobody trained these weights; loss' "$work/heads.html" || complain "--html: it does not say what ran"
cmp -s "$work/with/heads.csv" "$work/one/heads.csv" || complain "--html changes the experiments"
"$program" "${small[@]}" ${pictures[@]+"${pictures[@]}"} --out "$work/with" --html "$work/two.html" --threads 2 >"$work/out" 2>&1
# seconds and the command are what differs
cmp -s <(sed -E 's/--threads [12]//; s/(two|heads)\.html//' "$work/two.html") <(sed -E 's/--threads [12]//; s/(two|heads)\.html//' "$work/heads.html") ||
    complain "--html: the page depends on the threads"
refused 2 '--html: must name a file, got -' "${small[@]}" --html -
refused 2 "--html: $work/one/report.html is a file of --out" "${small[@]}" --no-pictures --out "$work/one" --html "$work/one/report.html"
refused 2 "--html $work/config.json is an input" "${small[@]}" --no-pictures --out "$work/one" --html "$work/config.json"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || browser=""
if [ -n "$browser" ] && command -v python3 >/dev/null && [ ${#pictures[@]} -eq 0 ]; then
    python3 "$ATTNSCOPE_SOURCE/tests/support/page_check.py" experiments "$browser" "$work/heads.html" 9 || complain "see above"
else
    echo "the page with the experiments is not opened: it takes chromium, python3 and gnuplot"
fi

# Killed at any moment: no page, or a whole one.
for delay in 0.05 0.2 0.6 1; do
    rm -rf "$work/killed"
    timeout -s KILL "$delay" "$program" "${small[@]}" ${pictures[@]+"${pictures[@]}"} --out "$work/killed" >/dev/null 2>&1
    page="$work/killed/report.html"
    [ ! -e "$page" ] || [ "$(tail -n 1 "$page")" = '</html>' ] || complain "a half-written page after $delay s"
done

refused 2 "MODEL or --random-weights"
refused 2 "--vectors must be one of value, hidden, contribution, got keys" "${small[@]}" --vectors keys
refused 2 "--level must be a number between 0 and 1, got 1.5" "${small[@]}" --level 1.5
refused 2 "--radius must be a number > 0, got none" "${small[@]}" --radius none
refused 2 "--text or --tokens" "$work"
refused 1 "the folder $work/none does not exist" "${small[@]}" --out "$work/none/results"
refused 1 "exists and is no folder" "${small[@]}" --out "$work/config.json"
refused 1 "at least 2 tokens" --random-weights "$work/config.json" --length 1 --no-pictures --out "$work/choice"
mkdir "$work/empty"
PATH="$work/empty" "$program" "${small[@]}" --out "$work/choice" >"$work/out" 2>"$work/err"
[ $? -eq 1 ] && grep -q 'needs gnuplot, which is not installed' "$work/err" || complain "a missing gnuplot is not told of"
exit "$failed"
