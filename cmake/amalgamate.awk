# The umbrella header with all headers of this project in it, each where it is first asked for, as one file that needs Eigen.
#   awk -v root=include -v out=attnscope_single.hpp -f amalgamate.awk
function emit(name, line, path, matched) {
    if (name in seen) return
    seen[name] = 1
    path = root "/" name
    while ((matched = (getline line < path)) > 0) {
        if (line ~ /^#pragma once/) continue
        if (line ~ /^#include <attnscope\//) {
            sub(/^#include </, "", line)
            sub(/>.*$/, "", line)
            emit(line)
        } else
            print line > out
    }
    if (matched < 0) {
        print "amalgamate.awk: cannot read " path > "/dev/stderr"
        failed = 1
        exit 1
    }
    close(path)
}
BEGIN {
    print "// attnscope, all headers of the core in one; made by amalgamate.awk. Needs C++20 and Eigen 3.4 or later." > out
    print "// MIT licence, see LICENSE." > out
    print "#pragma once" > out
    emit("attnscope/attnscope.hpp")
    exit failed
}
