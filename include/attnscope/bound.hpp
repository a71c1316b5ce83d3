// A limit that a theorem sets, beside the quantity it limits.
#pragma once

#include <attnscope/types.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {

/// Which side of `measured` the limit lies on: `lower` says measured >= value, `upper` says measured <= value.
enum class Side { lower, upper };

/// What a row says about a bound, from the best to the worst news.
enum class Verdict {
    holds,           ///< satisfied
    within_rounding, ///< exceeded by no more than the computed rounding error
    vacuous,         ///< satisfied, but no better than what holds without the theorem (or infinite)
    undefined,       ///< NaN on a side, or the row does not meet the theorem's assumption
    violated         ///< exceeded by more than rounding explains
};

inline constexpr std::array<std::string_view, 5> verdict_names = {"holds", "within_rounding", "vacuous",
                                                                  "undefined", "violated"};
/// The name of a verdict, as files and tables have it.
constexpr std::string_view name_of(Verdict verdict) { return verdict_names[static_cast<std::size_t>(verdict)]; }

/// A statement as the paper prints it, or in its sharpest true form.
enum class Form { published, sharp };

/// How sure we are of the text of a published statement.
enum class Provenance {
    verbatim,      ///< verbatim, or agreeing paraphrases
    reconstructed, ///< from prose, proofs and partial formulas: a verdict is one on the reconstruction
    not_recovered, ///< the published constant is not known; only our sharp form exists
    derived        ///< ours: the sharp form of a published statement
};

/// "published" or "sharp".
constexpr std::string_view name_of(Form form) { return form == Form::published ? "published" : "sharp"; }
/// "verbatim", "reconstructed", "not_recovered" or "derived".
constexpr std::string_view name_of(Provenance provenance) {
    switch (provenance) {
    case Provenance::verbatim:
        return "verbatim";
    case Provenance::reconstructed:
        return "reconstructed";
    case Provenance::not_recovered:
        return "not_recovered";
    case Provenance::derived:
        return "derived";
    }
    return "?";
}

/// One numbered statement in one form, of arXiv:2508.17821 (P) where its source names no other.
struct Statement {
    std::string_view id;
    Form form;
    Provenance provenance;
    std::string_view text;       ///< the inequality
    std::string_view conditions; ///< what it assumes
    std::string_view source;     ///< where it stands
};

/// The limit that holds on a side of every number: infinity above, -infinity below.
template <Real T>
constexpr T no_limit(Side side) {
    return side == Side::upper ? std::numeric_limits<T>::infinity() : -std::numeric_limits<T>::infinity();
}

/// One inequality on one row: `measured <= value` (upper) or `measured >= value` (lower); made by `upper_bound`
/// or `lower_bound`. Units are those of the quantity that the statement is about. A side that is not given is
/// NaN, so that the verdict is `undefined`.
template <Real T>
struct Bound {
    const Statement* statement = nullptr;             ///< the inequality; a constant, never a temporary
    Side side = Side::upper;                          ///< of `measured` on which the limit lies
    T value = std::numeric_limits<T>::quiet_NaN();    ///< the limit
    T measured = std::numeric_limits<T>::quiet_NaN(); ///< the quantity on this row
    T tolerance = T(0);                               ///< forward error of (value - measured), computed
    /// The limit that holds without the theorem: 1 for a weight, log L for an entropy.
    T trivial = no_limit<T>(side);
    bool assumption_met = true; ///< false: the theorem says nothing about this row

    /// Stable name of the statement, such as "corollary1"; empty without one.
    std::string_view id() const { return statement ? statement->id : std::string_view(); }

    /// Distance to the limit; >= 0 when the inequality is satisfied, on both sides.
    T slack() const { return side == Side::upper ? value - measured : measured - value; }

    /// How much of the limit is used, in [0,1]: measured/value (upper) or value/measured (lower); 0/0 is 1.
    /// An infinite limit has tightness 0; an exceeded one 1. NaN when a side is NaN.
    T tightness() const {
        if (std::isnan(value) || std::isnan(measured)) return std::numeric_limits<T>::quiet_NaN();
        if (std::isinf(value) && (side == Side::upper) == (value > T(0))) return T(0);
        const T small = side == Side::upper ? measured : value;
        const T large = side == Side::upper ? value : measured;
        if (small == large) return T(1);
        if (!(large > T(0))) return small < large ? T(0) : T(1);
        return std::clamp(small / large, T(0), T(1));
    }

    /// What the row says: `undefined` where a side is NaN or the assumption is not met, `violated` beyond the
    /// tolerance, `vacuous` where the limit is no better than `trivial` or infinite.
    Verdict verdict() const {
        if (!assumption_met || std::isnan(value) || std::isnan(measured) || std::isnan(tolerance))
            return Verdict::undefined;
        const bool no_news = std::isinf(value) || (side == Side::upper ? value >= trivial : value <= trivial);
        if (slack() < -tolerance) return Verdict::violated;
        if (no_news) return Verdict::vacuous;
        return slack() < T(0) ? Verdict::within_rounding : Verdict::holds;
    }

    /// The same statement with its limit moved towards the measured side by the factor 0 < f <= 1: what a
    /// sharper, possibly false theorem would claim. Used to show that tests have power. For limits >= 0.
    Bound tightened(T f) const {
        Bound other = *this;
        other.value = side == Side::upper ? value * f : value / f;
        return other;
    }
};

/// What a bound says, by name: the arguments of `upper_bound` and `lower_bound`, as the members of `Bound`.
template <Real T, Side S>
struct BoundTerms {
    T limit = std::numeric_limits<T>::quiet_NaN(); ///< `Bound::value`
    T measured = std::numeric_limits<T>::quiet_NaN();
    T tolerance = T(0);
    T trivial = no_limit<T>(S);
    bool assumption_met = true;
};

/// measured <= limit; without a `trivial` limit nothing but an infinite limit is vacuous. The statement must
/// outlive the bound: a constant.
/// Example: `upper_bound(lemma1_sharp_statement, {.limit = 0.5, .measured = p, .tolerance = 1e-15})`.
template <Real T = double>
constexpr Bound<T> upper_bound(const Statement& statement, const BoundTerms<T, Side::upper>& terms) {
    return {&statement,      Side::upper,   terms.limit,         terms.measured,
            terms.tolerance, terms.trivial, terms.assumption_met};
}

/// A statement that ends with the call.
template <Real T = double>
constexpr Bound<T> upper_bound(const Statement&&, const BoundTerms<T, Side::upper>&) = delete;

/// measured >= limit; otherwise as `upper_bound`.
template <Real T = double>
constexpr Bound<T> lower_bound(const Statement& statement, const BoundTerms<T, Side::lower>& terms) {
    return {&statement,      Side::lower,   terms.limit,         terms.measured,
            terms.tolerance, terms.trivial, terms.assumption_met};
}

/// A statement that ends with the call.
template <Real T = double>
constexpr Bound<T> lower_bound(const Statement&&, const BoundTerms<T, Side::lower>&) = delete;

/// Lower and upper limit of one quantity.
template <Real T>
struct Interval {
    T lower = T(0);
    T upper = T(0);
    bool contains(T x) const { return lower <= x && x <= upper; }
};

/// Both sides of a two-sided statement.
template <Real T>
using BoundPair = std::array<Bound<T>, 2>;

} // namespace v0_2
} // namespace attnscope
