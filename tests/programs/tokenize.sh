#!/usr/bin/env bash
# attnscope-tokenize: bytes to ids and back through files, one line for what is wrong.
set -u
program="$ATTNSCOPE_BIN/attnscope-tokenize"
. "$ATTNSCOPE_SOURCE/tests/support/program.sh"

# A vocabulary of bytes: names of the printable ones, the others from U+0100 on.
mkdir "$work/bytes"
: >"$work/bytes/merges.txt"
python3 - "$work/bytes/vocab.json" <<'PY' || { echo "skipped: no python3" >&2; exit 77; }
import json, sys
names, extra = {}, 256
for b in range(256):
    printable = 33 <= b <= 126 or 161 <= b <= 172 or b >= 174
    names[chr(b) if printable else chr(extra)] = b
    extra += not printable
json.dump(names, open(sys.argv[1], "w"))
PY

printf 'two words\n\xff' >"$work/text"
"$program" "$work/bytes" --text "$work/text" >"$work/ids" 2>"$work/err" || complain "it fails: $(cat "$work/err")"
[ "$(cat "$work/ids")" = "116 119 111 32 119 111 114 100 115 10 255" ] || complain "ids: $(cat "$work/ids")"
[ "$(wc -l <"$work/ids")" -eq 1 ] || complain "not one line"
"$program" "$work/bytes" --decode --text "$work/ids" >"$work/back" || complain "it does not decode"
cmp -s "$work/text" "$work/back" || complain "the text does not come back"

data="${ATTNSCOPE_DATA_DIR:-$ATTNSCOPE_SOURCE/../shared/data}"
if [ -e "$data/gpt2-tokenizer/vocab.json" ]; then
    "$program" "$data/gpt2-tokenizer" --text "$data/text/wikitext-2-valid.txt" >"$work/ids" &&
        "$program" "$data/gpt2-tokenizer" --decode --text "$work/ids" | cmp -s - "$data/text/wikitext-2-valid.txt" ||
        complain "wikitext does not come back"
fi

refused 1 "$work/none/vocab.json" "$work/none" --text "$work/text"
refused 1 "$work/none" "$work/bytes" --text "$work/none"
refused 2 "--text" "$work/bytes"
refused 2 "FOLDER" --text "$work/text"
echo "12 256" >"$work/far"
refused 1 "256" "$work/bytes" --decode --text "$work/far"
echo "12 word" >"$work/far"
refused 1 "word" "$work/bytes" --decode --text "$work/far"
exit "$failed"
