#!/usr/bin/env bash
# Arrows between the folders of include/attnscope point down only: fails on an #include that climbs, and if it should
# not notice one.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/include/attnscope

# folder: what its headers may include beside themselves, the root and detail. The three wings never see each other.
wings="concentration selection sensitivity"
declare -A below=(
    [root]="" [detail]="" [problems]="" [io]="row normalizer attention $wings selector audit streaming cache planner analysis" [row]="" [normalizer]="row" [attention]="row normalizer"
    [concentration]="row normalizer attention" [selection]="row normalizer attention"
    [sensitivity]="row normalizer attention"
    [audit]="row normalizer attention $wings" [streaming]="row normalizer attention $wings selector" [selector]="row normalizer attention selection"
    [cache]="row normalizer attention $wings"
    [planner]="row normalizer attention $wings cache"
    [runtime]="row normalizer attention $wings audit streaming cache planner"
    [analysis]="row normalizer attention $wings selector audit streaming cache planner runtime"
    [capture]="row normalizer attention $wings selector audit streaming cache planner runtime analysis io"
    [report]="row normalizer attention $wings selector audit streaming cache planner runtime analysis io capture"
)

# climbs <file>:<#include line>...: says which of them point up; the umbrella, fmt.hpp, plan_text.hpp, mpi.hpp and precompiled.hpp
# may see everything.
climbs() {
    local file line target from to
    while IFS=: read -r file line; do
        [[ $file == attnscope.hpp || $file == fmt.hpp || $file == plan_text.hpp || $file == mpi.hpp || $file == precompiled.hpp ]] && continue
        target=$(sed -E 's/.*<attnscope\/([^>]*)>.*/\1/' <<<"$line")
        from=root to=root
        [[ $file == */* ]] && from=${file%%/*}
        [[ $target == */* ]] && to=${target%%/*}
        if [ -z "${below[$from]+known}" ]; then
            echo "$file: the folder $from has no place in layering.sh"
        elif [[ " $from root detail ${below[$from]} " != *" $to "* ]]; then
            echo "$file includes <attnscope/$target>, which stands above it or beside it"
        fi
    done
}

# What stands in a namespace detail is the library's own; its tests are in tests/unit/detail.
found=$(cd "$top/../.." && grep -rn --include='*.[ch]pp' 'detail::' examples benchmarks tests/unit tests/property | grep -v '^tests/unit/detail/')
[ -z "$found" ] || { echo "$found"; exit 1; }

found=$(cd "$top" && grep -rE --include='*.hpp' '^#include <attnscope/' . | sed 's|^\./||' | climbs)
[ -z "$found" ] || { echo "$found"; exit 1; }
for wrong in 'selection/a.hpp:#include <attnscope/concentration/b.hpp>' 'row/a.hpp:#include <attnscope/normalizer/b.hpp>' \
    'normalizer/a.hpp:#include <attnscope/runtime/b.hpp>' 'types.hpp:#include <attnscope/row/b.hpp>' \
    'nowhere/a.hpp:#include <attnscope/types.hpp>'; do
    [ -n "$(climbs <<<"$wrong")" ] || { echo "not noticed: $wrong"; exit 1; }
done
[ -z "$(climbs <<<'audit/a.hpp:#include <attnscope/selection/b.hpp>')" ] || { echo "noticed without a reason"; exit 1; }
