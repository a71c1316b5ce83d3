// Bytes of a file as accidents leave them.
#pragma once

#include <attnscope/random.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace attnscope_test {

/// Cut short, with one bit or eight bytes changed, or with a byte too many.
inline std::vector<std::byte> damaged(attnscope::SplitMix64& random, std::vector<std::byte> bytes) {
    using attnscope::Index;
    const auto place = static_cast<std::size_t>(random.below(static_cast<Index>(bytes.size())));
    switch (random.below(4)) {
    case 0:
        bytes.resize(place);
        break;
    case 1:
        bytes[place] ^= static_cast<std::byte>(1 << random.below(8));
        break;
    case 2:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(place), std::byte{0xff});
        break;
    default:
        for (std::size_t i = place; i < std::min(bytes.size(), place + 8); ++i)
            bytes[i] = static_cast<std::byte>(random.below(256));
    }
    return bytes;
}

} // namespace attnscope_test
