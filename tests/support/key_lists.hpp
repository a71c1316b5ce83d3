// Sets of keys as lists, for comparing.
#pragma once

#include <attnscope/selector/key_sets.hpp>

namespace attnscope_test {

using Lists = std::vector<std::vector<attnscope::Index>>;

inline Lists lists_of(const attnscope::KeySets& sets) {
    Lists lists;
    for (attnscope::Index i = 0; i < sets.queries(); ++i) lists.emplace_back(sets(i).begin(), sets(i).end());
    return lists;
}

} // namespace attnscope_test
