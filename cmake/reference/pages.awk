# A page of Markdown as Doxygen takes it: headings get the anchors that they have on GitHub, links between
# pages lead to pages of the reference, which Doxygen then checks. root: the folder of the sources. The file is
# given twice. Works with text.awk.
BEGIN { read_names() }

# The label of a page or, with an anchor, of one of its sections: docs/guide.md is guide.
function label_of(file, anchor) {
    sub(/\.md$/, "", file)
    sub(/^docs\//, "", file)
    gsub(/[^A-Za-z0-9]/, "_", file)
    return anchor == "" ? "page_" file : file "-" anchor
}

# GitHub's anchor of a heading.
function slug(text,    n) {
    text = tolower(text)
    gsub(/[^a-z0-9 _-]/, "", text)
    gsub(/ /, "-", text)
    n = seen[text]++
    return n ? text "-" n : text
}

# folder "docs" and "../a/b.md" are a/b.md.
function joined(path) {
    path = folder == "" ? path : folder "/" path
    while (sub(/[^\/]+\/\.\.\//, "", path)) {}
    return path
}

function target_of(link,    hash, anchor) {
    if (link ~ /^(https?|mailto):/) return link
    hash = index(link, "#")
    anchor = hash ? substr(link, hash + 1) : ""
    if (hash) link = substr(link, 1, hash - 1)
    return "@ref " label_of(link == "" ? own : joined(link), anchor)
}

# Text without code: links, images and emphasis stay.
function plain(text,    out, before, word, link, close_word) {
    out = ""
    if (linked && match(text, /^[^\[\]]*\]\([^() ]+\)/)) { # the end of a link with code in its text
        link = substr(text, 1, RLENGTH - 1)
        text = substr(text, RLENGTH + 1)
        close_word = index(link, "](")
        out = around(substr(link, 1, close_word - 1)) "](" target_of(substr(link, close_word + 2)) ")"
    }
    while (match(text, /!?\[[^\]]+\](\([^) ]+\))?/)) {
        before = substr(text, 1, RSTART - 1)
        word = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        out = out around(before)
        close_word = index(word, "]")
        if (word ~ /^!/) { # Doxygen looks for pictures by their name
            link = substr(word, close_word + 2, length(word) - close_word - 2)
            sub(/^.*\//, "", link)
            out = out "<img src=\"" link "\" alt=\"" substr(word, 3, close_word - 3) "\"/>"
        } else {
            link = substr(word, 2, close_word - 2)
            word = word ~ /\)$/ ? substr(word, close_word + 2, length(word) - close_word - 2) : ""
            if (word != "") out = out "[" around(link) "](" target_of(word) ")"
            else if (link in reference) out = out "[" around(link) "](" target_of(reference[link]) ")"
            else out = out "\\[" around(link) "\\]"
        }
    }
    return out around(text)
}

function around(text) {
    gsub(/[@#%&$"~]/, "\001&", text)
    gsub(/\001"/, "\\&quot;", text)
    gsub(/\001~/, "\\&#126;", text)
    gsub(/\001/, "\\", text)
    gsub(/</, "\\<", text)
    gsub(/>/, "\\>", text)
    gsub(/--/, "\\--", text)
    gsub(/::/, "\\::", text)
    return with_papers(text)
}

# Code in backquotes may go on in the next line.
function inline(text,    part, count, i, out) {
    count = split(text, part, "`")
    out = ""
    for (i = 1; i <= count; ++i) {
        if (!in_code) {
            out = out plain(part[i])
            if (part[i] ~ /\[[^\]]*$/) linked = 1
            else if (part[i] ~ /\]/) linked = 0
        } else if (i == 1 || i == count) out = out (i == 1 ? "" : "<code>") escaped(part[i]) (i == count ? "" : "</code>")
        else { gsub(/\\\|/, "|", part[i]); out = out code_in_place(part[i]) }
        if (i < count) in_code = !in_code
    }
    return out
}
# In the text of a link, code leads where the link does, not to its name's page. Doxygen takes that text as it is: no
# tags, no escaped underscores.
function code_in_place(text) {
    if (linked) {
        text = escaped(text)
        gsub(/\\_/, "_", text)
    } else text = code(text)
    if (table) gsub(/\|/, "\\&#124;", text)
    return text
}

# References stand at the end and are used before it.
NR == FNR {
    if (match($0, /^\[[^\]]+\]: /)) reference[substr($0, 2, RLENGTH - 4)] = substr($0, RLENGTH + 1)
    next
}
FNR == 1 {
    own = substr(FILENAME, length(root) + 2)
    folder = own ~ /\// ? own : ""
    sub(/\/[^\/]*$/, "", folder)
}
/^ *```/ { fence = !fence; print; next }
fence { print; next }
/^\[[^\]]+\]: / || /^<!--.*-->$/ { next }
/^ *\|[-:| ]+$/ { print; next } # the line below the head of a table
/^$/ { in_code = linked = 0 }
/^#+ / {
    in_code = linked = table = 0
    heading = $0
    sub(/^#+ /, "", heading)
    match($0, /^#+/)
    if (RLENGTH == 1) anchor = own == "README.md" ? "mainpage" : label_of(own)
    else anchor = label_of(own, slug(heading))
    if (RLENGTH == 1) slug(heading)
    print substr($0, 1, RLENGTH) " " inline(heading) " {#" anchor "}"
    next
}
{
    table = /^ *\|/
    line = $0
    # Doxygen knows no emphasis that goes on for lines.
    begins = line ~ /^\*[^* ]/ && line !~ /^\*[^*]*\*/ && !emphasis
    if (begins) { emphasis = 1; line = substr(line, 2) }
    ends = emphasis && sub(/\*$/, "", line)
    print (begins ? "<em>" : "") inline(line) (ends ? "</em>" : "")
    if (ends) emphasis = 0
}
