// Formatting of attnscope's types with fmt. The only header that includes fmt; Eigen objects are not formatted.
#pragma once

#include <attnscope/analysis/table.hpp>
#include <attnscope/audit/audit.hpp>
#include <attnscope/normalizer/concept.hpp>

#include <fmt/format.h>

namespace attnscope {
inline namespace v0_2 {
/// "lower" or "upper".
constexpr std::string_view name_of(Side side) { return side == Side::lower ? "lower" : "upper"; }

namespace detail {

/// An enumerator prints its name and takes the format specification of a string: `{:>10}`.
template <class E>
struct NameFormatter : fmt::formatter<fmt::string_view> {
    template <class Context>
    auto format(E value, Context& context) const {
        const std::string_view name = name_of(value);
        return fmt::formatter<fmt::string_view>::format({name.data(), name.size()}, context);
    }
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope

template <>
struct fmt::formatter<attnscope::Verdict> : attnscope::detail::NameFormatter<attnscope::Verdict> {};
template <>
struct fmt::formatter<attnscope::Form> : attnscope::detail::NameFormatter<attnscope::Form> {};
template <>
struct fmt::formatter<attnscope::Provenance> : attnscope::detail::NameFormatter<attnscope::Provenance> {};
template <>
struct fmt::formatter<attnscope::Side> : attnscope::detail::NameFormatter<attnscope::Side> {};
template <>
struct fmt::formatter<attnscope::RowStatus> : attnscope::detail::NameFormatter<attnscope::RowStatus> {};

/// `corollary3: measured 0.5 <= 0.25: violated`; a specification such as `{:.3g}` goes to both numbers.
template <class T>
struct fmt::formatter<attnscope::Bound<T>> : fmt::formatter<T> {
    template <class Context>
    auto format(const attnscope::Bound<T>& bound, Context& context) const {
        context.advance_to(fmt::format_to(context.out(), "{}: measured ",
                                          fmt::string_view(bound.id().data(), bound.id().size())));
        context.advance_to(fmt::formatter<T>::format(bound.measured, context));
        context.advance_to(
            fmt::format_to(context.out(), " {} ", bound.side == attnscope::Side::upper ? "<=" : ">="));
        context.advance_to(fmt::formatter<T>::format(bound.value, context));
        return fmt::format_to(context.out(), ": {}", bound.verdict());
    }
};

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// The text of `to_table`.
template <class Table>
struct TableFormatter : fmt::formatter<fmt::string_view> {
    template <class Context>
    auto format(const Table& table, Context& context) const {
        return fmt::formatter<fmt::string_view>::format(to_table(table), context);
    }
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope

template <>
struct fmt::formatter<attnscope::Audit> : attnscope::detail::TableFormatter<attnscope::Audit> {};
template <>
struct fmt::formatter<attnscope::HeadAnalysis> : attnscope::detail::TableFormatter<attnscope::HeadAnalysis> {};
template <>
struct fmt::formatter<attnscope::LayerAnalysis> : attnscope::detail::TableFormatter<attnscope::LayerAnalysis> {
};
