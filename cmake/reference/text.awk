# Text of doc comments and pages as Doxygen takes it: every character means itself, and names in backquotes lead to
# their page. names: a file with a name and the full name behind it on each line.
function read_names(    line, part) {
    while ((getline line < names) > 0) {
        split(line, part, " ")
        full_name[part[1]] = part[2]
    }
    close(names)
}

# Characters that Doxygen or Markdown would take for a sign of their own.
function escaped(text) {
    gsub(/\\/, "\\\\\\\\", text)
    gsub(/[<>@#%&*_$"~^`\[\]!]/, "\001&", text)
    # HTML's names for those that no backslash escapes, and so that no text is quoted or struck out.
    gsub(/\001"/, "\\&quot;", text)
    gsub(/\001~/, "\\&#126;", text)
    gsub(/\001\^/, "^", text)
    gsub(/\001!/, "!", text)
    gsub(/\001/, "\\", text)
    gsub(/--/, "\\--", text)
    gsub(/::/, "\\::", text)
    return text
}

# What stands between two backquotes. A name alone is a link, and so is a type in front of arguments.
function code(text,    name) {
    if (match(text, /^[A-Z][A-Za-z]+[({<]/)) {
        name = substr(text, 1, RLENGTH - 1)
        if (name in full_name)
            return "<code>@ref " full_name[name] " \"" name "\"" escaped(substr(text, RLENGTH)) "</code>"
    }
    name = text
    sub(/\(\)$/, "", name)
    if (name in full_name) return "<code>@ref " full_name[name] " \"" text "\"</code>"
    return "<code>" escaped(text) "</code>"
}

# Papers by their numbers.
function with_papers(text,    out, number) {
    out = ""
    while (match(text, /arXiv:[0-9][0-9][0-9][0-9][.][0-9][0-9][0-9][0-9][0-9]/)) {
        number = substr(text, RSTART + 6, RLENGTH - 6)
        out = out substr(text, 1, RSTART - 1) "<a href=\"https://arxiv.org/abs/" number "\">arXiv:" number "</a>"
        text = substr(text, RSTART + RLENGTH)
    }
    return out text
}
