// Masks under which scans of whole rows are tested, and random matrices for their heads.
#pragma once

#include <support/scalars.hpp>

#include <attnscope/attention/mask.hpp>
#include <attnscope/random.hpp>

#include <string_view>
#include <vector>

namespace attnscope_test {

struct NamedMask {
    std::string_view name;
    attnscope::Mask mask;
};

inline std::vector<NamedMask> masks(Index queries, Index keys) {
    using attnscope::Mask;
    return {{"none", Mask::none()},
            {"causal", Mask::causal_bottom_right(queries, keys)},
            {"wide window", Mask::sliding_window(30, keys - queries)},
            {"window and sinks", Mask::sliding_window(4, keys - queries).with_sinks(2)},
            {"length", Mask::none().with_length(keys / 2)},
            {"prefix", Mask::causal_bottom_right(queries, keys).with_prefix(keys / 3)},
            {"nothing", Mask::none().with_length(0)}};
}

template <class T>
attnscope::Matrix<T> normal(attnscope::SplitMix64& random, Index rows, Index cols, double deviation) {
    attnscope::Matrix<T> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(deviation * random.normal());
    return m;
}

} // namespace attnscope_test
