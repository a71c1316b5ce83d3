# A header as Doxygen takes it. Its first comment becomes the text of a group, which holds all its names; labelled lines
# ("Cost. O(n).") become paragraphs with a heading, indented lines code. What stands in a namespace detail and
# the inline namespace of the version are left out. Works with text.awk.
BEGIN { read_names() }

# What a comment becomes is held back until it is known whose it is.
function say(text) { held = held lead text "\n" }

function prose(text,    out, part, count, i) {
    count = split(text, part, "`")
    out = ""
    for (i = 1; i <= count; ++i) out = out (i % 2 ? with_papers(escaped(part[i])) : code(part[i]))
    return out
}

function flush_paragraph() {
    if (paragraph != "") say(prose(paragraph))
    paragraph = ""
}

function end_code() {
    if (in_code) say("@endcode")
    in_code = 0
}

# A label and the text behind it, where the line begins with one.
function label_of(text) {
    if (match(text, /^(Invariant|Formula|Shapes and units|Special rows|Cost|Throws|Source)\. /)) return RLENGTH
    return match(text, /^Example[:,]/) ? RLENGTH : 0
}

function add_comment(text,    length_of_label, rest) {
    if (text ~ /^    /) { # a formula or an example
        flush_paragraph()
        if (!in_code) say(example ? "@code{.cpp}" : "@code{.unparsed}")
        in_code = 1
        say(substr(text, 5))
        return
    }
    end_code()
    length_of_label = label_of(text)
    if (length_of_label) {
        flush_paragraph()
        example = text ~ /^Example/
        say("@par " (example ? "Example" : substr(text, 1, length_of_label - 2)))
        text = substr(text, length_of_label + 1)
        sub(/^ +/, "", text)
        if (example) text = toupper(substr(text, 1, 1)) substr(text, 2)
    }
    if (text ~ /^ *$/) {
        flush_paragraph()
        say("")
        return
    }
    paragraph = paragraph (paragraph == "" ? "" : " ") text
}

function end_comment() {
    flush_paragraph()
    end_code()
    example = in_comment = 0
}
function print_comment() { printf "%s", held; held = "" }

function title_of(file) {
    sub(/^.*\/include\/attnscope\//, "", file)
    return file
}

function open_group() { if (!group_is_open) print "/// @addtogroup " group "\n/// @{\n"; group_is_open = 1 }
function close_group() { if (group_is_open) print "/// @}"; group_is_open = 0 }

FNR == 1 {
    title = title_of(FILENAME)
    folder = title ~ /\// ? substr(title, 1, index(title, "/") - 1) : "core"
    group = "header_" title
    gsub(/[^A-Za-z0-9]/, "_", group)
    sub(/_hpp$/, "", group)
    lead = "/// "
    print "/// @defgroup " group " " title "\n/// @ingroup wing_" folder
    heading = 1
}
heading && /^\/\/ / { add_comment(substr($0, 4)); next }
heading {
    end_comment()
    print_comment()
    print "/// @code{.cpp}\n/// #include <attnscope/" title ">\n/// @endcode\n"
    heading = 0
}

in_comment && !/^ *\/\/\/([^<]|$)/ { end_comment() }
# Specialisations of what other libraries have are not ours to describe.
/^namespace attnscope \{/ { inside = 1 }
!inside && !/^[\/# ]|^$/ { held = ""; foreign = 1 }
/^} \/\/ namespace attnscope/ { inside = 0 }
foreign { if (/^}|^[^ ].*; *$/) foreign = 0; next }
/^ *namespace detail \{/ { held = ""; hidden = 1 }
hidden { if (/^ *} \/\/ namespace detail/) hidden = 0; next }
/^} \/\/ namespace/ { close_group() }
/^inline namespace v[0-9_]+ \{/ { held = ""; next }
/^} \/\/ namespace v[0-9_]+$/ { next }
# Macros stand above the namespace.
/^#define ATTNSCOPE_/ && !/DETAIL/ && title == "config.hpp" { open_group(); print; next }
/^namespace [a-z]+ \{$/ { close_group(); print; next }
# The group opens with the first line of the namespace, so that it holds names and not the namespace.
/^[^ #}]/ && !/^\/\/[^\/]/ && !group_is_open { open_group() }

/^ *\/\/\/ ?/ && !/^ *\/\/\/</ {
    if (!in_comment) {
        match($0, /^ */)
        lead = substr($0, 1, RLENGTH) "/// "
        in_comment = 1
    }
    text = $0
    sub(/^ *\/\/\/ ?/, "", text)
    add_comment(text)
    next
}
# Friends have no entry of their own in Doxygen, and its search would look for one.
/^ +friend / && !/^ +friend (class|struct) / { held = ""; a_friend = 1 }
a_friend { if (/[;}]$/ && (/^ +friend / || /^ +}/)) a_friend = 0; next }
{ print_comment() }
# A comment behind a member, and its next lines.
match($0, /\/\/\/< ?/) {
    print substr($0, 1, RSTART - 1) "///< " prose(substr($0, RSTART + RLENGTH))
    next
}
{ print }
END { close_group() }
