// What the data of a row allowed.
#pragma once

#include <string_view>

namespace attnscope {
inline namespace v0_2 {

/// What the data of a row allowed.
enum class RowStatus : unsigned char {
    normal,   ///< weights follow the formula
    empty,    ///< no key is visible, or no visible key has mass: all weights are 0
    infinite, ///< some logit is +inf: the mass is split evenly over those
    nan       ///< some logit is NaN: all weights are NaN
};
/// "normal", "empty", "infinite" or "nan".
constexpr std::string_view name_of(RowStatus status) {
    switch (status) {
    case RowStatus::normal:
        return "normal";
    case RowStatus::empty:
        return "empty";
    case RowStatus::infinite:
        return "infinite";
    case RowStatus::nan:
        return "nan";
    }
    return "?";
}

} // namespace v0_2
} // namespace attnscope
