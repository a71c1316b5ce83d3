# The public names of headers that comments.awk has filtered, each with its full name; the headers with their groups.
function add(name) {
    # Words that mostly mean an option or a member where a text has them.
    if (name ~ /^(temperature|write|version|description|sinks|jvp|vjp|rotated|contributions)$/) return
    full = scope "::" name
    print name, full
    if (scope != "attnscope") print substr(scope, 12) "::" name, full
}
/^\/\/\/ @defgroup / { print $4, $3; print "attnscope/" $4, $3; next }
/^namespace [a-z]+ \{$/ { scope = scope == "" ? $2 : scope "::" $2; next }
/^} \/\/ namespace/ { if (!sub(/::[a-z]+$/, "", scope)) scope = ""; next }
/^\/\/|^#|^ |^}|^$|^template|^requires|^static_assert|^friend|^extern/ { next }
/^(class|struct|enum class) [A-Z][A-Za-z0-9]* *[:{f]/ || /^(class|struct|enum class) [A-Z][A-Za-z0-9]*$/ {
    match($0, /[A-Z][A-Za-z0-9]*/)
    add(substr($0, RSTART, RLENGTH))
    next
}
/^(class|struct|enum) / { next }
/^using [A-Za-z0-9_]+ =/ { add($2); next }
/^concept [A-Za-z0-9_]+ =/ { next }
/^inline constexpr [A-Za-z:<>0-9_, *]+ [a-z_0-9]+ *(=|\{)/ {
    line = $0
    sub(/ *(=|\{).*/, "", line)
    sub(/.* /, "", line)
    add(line)
    next
}
/ operator/ { next }
match($0, /[ &*][A-Za-z_0-9]+\(/) { add(substr($0, RSTART + 1, RLENGTH - 2)) }
