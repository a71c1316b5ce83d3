#!/usr/bin/env bash
# fetch_model.sh NAME [FOLDER]: downloads config.json, vocab.json, merges.txt and model.safetensors of a model from the Hugging
# Face hub (gpt2 is openai-community/gpt2) into FOLDER (in the user's cache unless given) and prints FOLDER. What is there is
# kept, an interrupted download goes on, and every file must have the size and hash that the hub states. Needs curl.
set -euo pipefail
say() { echo "fetch_model.sh: $*" >&2; }
[ $# -ge 1 ] && [ $# -le 2 ] || {
    say "usage: fetch_model.sh NAME [FOLDER]"
    exit 2
}
name=$1
case $name in
gpt2 | gpt2-medium | gpt2-large | gpt2-xl) name=openai-community/$name ;;
*/*) ;;
*)
    say "NAME must be gpt2, gpt2-medium, gpt2-large, gpt2-xl or owner/model, got $name"
    exit 2
    ;;
esac
hub=${ATTNSCOPE_HUB:-https://huggingface.co}
folder=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/attnscope/${name##*/}}
files=(config.json vocab.json merges.txt model.safetensors)

missing=()
for file in "${files[@]}"; do [ -e "$folder/$file" ] || missing+=("$file"); done
if [ ${#missing[@]} -eq 0 ]; then # each was verified before it got its name
    echo "$folder"
    exit 0
fi
command -v curl >/dev/null || {
    say "curl is missing (Debian: apt-get install curl)"
    exit 1
}
mkdir -p "$folder"

# The last value of a header over all redirections, without quotes.
header() { tr -d '\r' <<<"$headers" | sed -n "s/^$1: *//Ip" | tail -n 1 | sed 's/^W\///; s/"//g'; }

for file in "${missing[@]}"; do
    url=$hub/$name/resolve/main/$file
    if ! headers=$(curl -fsIL --connect-timeout 20 "$url"); then
        say "$url cannot be reached. Place these files of https://huggingface.co/$name/tree/main into $folder and run" \
            "this again: ${missing[*]}"
        exit 1
    fi
    size=$(header x-linked-size) hash=$(header x-linked-etag)
    [ -n "$size" ] || size=$(header content-length)
    [ -n "$hash" ] || hash=$(header etag)
    say "$file, $size bytes"
    part=$folder/$file.part
    [ "$(stat -c %s "$part" 2>/dev/null || echo 0)" -lt "$size" ] || rm -f "$part" # whole but not verified: anew
    if ! curl -fsSL --connect-timeout 20 -C - -o "$part" "$url"; then
        say "$file: the download was interrupted; run this again and it goes on"
        exit 1
    fi
    found=$(stat -c %s "$part")
    case ${#hash} in
    64) sum=$(sha256sum "$part" | cut -d' ' -f1) ;;
    40) sum=$({ printf 'blob %s\0' "$found" && cat "$part"; } | sha1sum | cut -d' ' -f1) ;; # as git names a file
    *)
        say "$file: the hub states no hash, only '$hash'"
        exit 1
        ;;
    esac
    if [ "$found" != "$size" ] || [ "$sum" != "$hash" ]; then
        rm -f "$part"
        say "$file: expected $size bytes with hash $hash, found $found with $sum; it was removed"
        exit 1
    fi
    mv "$part" "$folder/$file"
done
echo "$folder"
