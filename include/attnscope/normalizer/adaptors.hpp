// What goes in front of a normaliser (softcap, temperature) and behind it (top-k, top-p), joined by |:
//     softcap(50) | ScalableSoftmax(0.43) | top_k(64)
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/detail/row_cut.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/random.hpp>

#include <string>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// z -> c tanh(z/c): logits are capped at +-c. Masked keys stay masked; +inf becomes c. Made by `softcap`.
struct Softcap {
    double cap = 50;
    static constexpr std::string_view name() { return "softcap"; }
    template <Real T>
    void apply(std::span<const T> z, std::span<T> out) const {
        using P = detail::Packet<T>;
        constexpr T infinity = std::numeric_limits<T>::infinity();
        const P c = cap_in<T>(), inverse = 1 / cap_in<T>();
        const P lowest = std::numeric_limits<T>::lowest(), masked = -infinity;
        const P zero = T(0);
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto x = lane(z.data(), -infinity);
            // A large argument makes tanh slow for its neighbours too.
            const auto inside = select_below(x, lowest, zero, x);
            const auto y = c * tanh(inside * inverse);
            lane.store(out.data(), select_below(x, lowest, masked, y));
        });
    }
    /// out = v (1 - tanh(z/c)^2), and 0 at masked keys.
    template <Real T>
    void scale_by_slope(std::span<const T> z, std::span<const T> v, std::span<T> out) const {
        using P = detail::Packet<T>;
        const P one = T(1), two = T(2), zero = T(0);
        const P inverse = 1 / cap_in<T>();
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            // 1/cosh^2 x = 4 e/(1 + e)^2 with e = e^{-2|x|}: no difference of numbers near 1.
            const auto x = abs(lane(z.data()) * inverse);
            const auto e = exp_nonpositive(zero - two * x);
            const auto root = two / (one + e);
            lane.store(out.data(), lane(v.data()) * (e * (root * root)));
        });
    }

    /// The cap, with itself and its inverse inside the normal numbers of T.
    template <Real T>
    T cap_in() const {
        constexpr T smallest = std::numeric_limits<T>::min();
        using L = long double;
        return static_cast<T>(std::clamp(L(cap), L(smallest), L(T(1) / smallest)));
    }
};

/// z -> z/T. A quotient that overflows counts as +inf. In front of a normaliser that knows its logits up to a
/// shift, (z - max z)/T: an offset of all logits is then without effect. Made by `temperature`.
struct Temperature {
    double temperature = 1;
    static constexpr std::string_view name() { return "temperature"; }
    template <Real T>
    void apply(std::span<const T> z, std::span<T> out) const {
        scale_by_slope<T>(z, z, out);
    }
    /// (z - max z)/T; z/T where max z is not finite.
    template <Real T>
    void apply_shifted(std::span<const T> z, std::span<T> out) const {
        using P = detail::Packet<T>;
        const T m = detail::row_max<T>(z);
        const P top = std::abs(m) <= std::numeric_limits<T>::max() ? m : T(0);
        const P inverse = detail::clamped_inverse<T>(temperature);
        detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
            lane.store(out.data(), (lane(z.data()) - top) * inverse);
        });
    }
    template <Real T>
    void scale_by_slope(std::span<const T> z, std::span<const T> v, std::span<T> out) const {
        using P = detail::Packet<T>;
        const P inverse = detail::clamped_inverse<T>(temperature);
        detail::for_each_lane<T>(detail::size<T>(z),
                                 [&](const auto& lane) { lane.store(out.data(), lane(v.data()) * inverse); });
    }
};

namespace detail {

/// What a map of the logits in front of a normaliser leaves of its promises; `linear`: the map is a
/// multiplication.
constexpr NormalizerTraits mapped_traits(NormalizerTraits inner, bool linear) {
    inner.shift_invariant = inner.shift_invariant && linear;
    inner.symmetric_jacobian = inner.symmetric_jacobian && linear;
    inner.derivative_from_weights = false;
    return inner;
}

/// What a choice behind a normaliser leaves of its promises. Equal logits may be separated, so that no order is
/// kept.
constexpr NormalizerTraits restricted_traits(NormalizerTraits inner) {
    inner.order_preserving = false;
    inner.symmetric_jacobian = inner.symmetric_jacobian && inner.restrictable;
    inner.sparse = true;
    inner.derivative_from_weights = inner.derivative_from_weights && inner.restrictable;
    return inner;
}

} // namespace detail

/// A map of every logit, then a normaliser; made by `softcap(50) | Softmax()`.
/// Formula. p(z) = N(f(z)), J = J_N diag(f'(z)).
/// Special rows. Those of N.
/// Cost. That of N and O(n); jvp and vjp allocate one row when the derivative of N looks at the logits.
template <class Map, class N>
class MappedNormalizer {
public:
    static constexpr NormalizerTraits traits = detail::mapped_traits(N::traits, std::same_as<Map, Temperature>);

    MappedNormalizer(Map map, N inner) : map_(map), inner_(std::move(inner)) {}

    std::string name() const { return std::string(Map::name()) + "|" + std::string(inner_.name()); }
    const Map& map() const { return map_; }
    const N& inner() const { return inner_; }
    NormalizerTraits promises() const
    requires TellsPromises<N>
    {
        return detail::mapped_traits(inner_.promises(), std::same_as<Map, Temperature>);
    }

    template <Real T>
    requires Normalizer<N, T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("MappedNormalizer::apply", z, out);
        mapped(z, out);
        return inner_.apply(std::span<const T>(out), out);
    }
    /// The logits at which N gives the weights and their derivative.
    template <Real T>
    void mapped(std::span<const T> z, std::span<T> out) const {
        if constexpr (std::same_as<Map, Temperature>)
            if (promises_of(inner_).shift_invariant) return map_.apply_shifted(z, out);
        map_.apply(z, out);
    }
    template <Real T>
    requires Normalizer<N, T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("MappedNormalizer::jvp", z, p, v, out);
        with_mapped<T>(z, [&](std::span<const T> mapped) {
            if constexpr (std::same_as<Map, Temperature>) { // v/T may overflow where J v is 0
                inner_.jvp(mapped, p, v, out);
                map_.template scale_by_slope<T>(z, std::span<const T>(out), out);
            } else {
                map_.template scale_by_slope<T>(z, v, out);
                inner_.jvp(mapped, p, std::span<const T>(out), out);
            }
        });
    }
    template <Real T>
    requires Normalizer<N, T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("MappedNormalizer::vjp", z, p, w, out);
        with_mapped<T>(z, [&](std::span<const T> mapped) {
            inner_.vjp(mapped, p, w, out);
            map_.template scale_by_slope<T>(z, std::span<const T>(out), out);
        });
    }

    /// That of N at the mapped logits. Allocates one row.
    template <Real T>
    requires HasLogSumExp<N, T>
    T log_sum_exp(std::span<const T> z) const {
        std::vector<T> row(z.size());
        map_.apply(z, std::span<T>(row));
        return inner_.log_sum_exp(std::span<const T>(row));
    }

    /// That of N at the mapped logits: the map does not touch the sink. Allocates one row.
    template <Real T>
    requires HasSink<N, T>
    Accumulator<T> sink_mass(std::span<const T> z) const {
        std::vector<T> row(z.size());
        map_.apply(z, std::span<T>(row));
        return inner_.sink_mass(std::span<const T>(row));
    }
    bool has_sink() const { return attnscope::has_sink(inner_); }
    double sink_slope() const {
        const double slope = attnscope::sink_slope(inner_);
        if constexpr (std::same_as<Map, Temperature>)
            return slope / map_.temperature;
        else
            return slope;
    }

private:
    template <Real T, class F>
    void with_mapped(std::span<const T> z, F&& f) const {
        if (promises_of(inner_).derivative_from_weights) {
            f(z); // the same keys are masked, and nothing else is looked at
        } else {
            std::vector<T> row(z.size());
            mapped(z, std::span<T>(row));
            f(std::span<const T>(row));
        }
    }
    Map map_;
    N inner_;
};

/// Keeps the k largest weights.
struct TopK {
    Index k = 1;
    static constexpr std::string_view name() { return "topk"; }
    /// Returns the sum of what is kept.
    template <Real T>
    Accumulator<T> choose(std::span<T> p) const {
        if (k >= detail::size<T>(p)) return detail::wide_sum<T>(p);
        detail::DroppedElements<T> dropped{.most = detail::size<T>(p) - k};
        return detail::apply_cut<T>(detail::cut_row<T>(p, dropped), p);
    }
};

/// Keeps the smallest set of largest weights that has the share `mass` of their sum.
struct TopP {
    double mass = 1;
    static constexpr std::string_view name() { return "topp"; }
    /// Returns the sum of what is kept.
    template <Real T>
    Accumulator<T> choose(std::span<T> p) const {
        // From the small end, so that a share of 1 keeps every key that has weight.
        using A = Accumulator<T>;
        detail::DroppedElements<T> dropped{.most = detail::size<T>(p) - 1,
                                           .spare = (1 - A(mass)) * detail::wide_sum<T>(p),
                                           .looks_at_sum = true};
        return detail::apply_cut<T>(detail::cut_row<T>(p, dropped), p);
    }
};

/// A normaliser, then a choice among its weights; made by `Softmax() | top_k(64)`.
/// Formula. The chosen weights are divided by their sum if N promises weights that sum to 1, else kept as
/// they are. J is that of the chosen set, which is constant but for ties.
/// Special rows. Those of N.
/// Cost. That of N and O(n); `apply` allocates one row; jvp and vjp allocate two unless N is `restrictable`.
template <class N, class Choice>
class RestrictedNormalizer {
public:
    static constexpr NormalizerTraits traits = detail::restricted_traits(N::traits);

    RestrictedNormalizer(N inner, Choice choice) : inner_(std::move(inner)), choice_(choice) {}

    std::string name() const { return std::string(inner_.name()) + "|" + std::string(Choice::name()); }
    const N& inner() const { return inner_; }
    const Choice& choice() const { return choice_; }
    NormalizerTraits promises() const
    requires TellsPromises<N>
    {
        return detail::restricted_traits(inner_.promises());
    }

    template <Real T>
    requires Normalizer<N, T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("RestrictedNormalizer::apply", z, out);
        const RowStatus status = inner_.apply(z, out);
        if (status == RowStatus::nan || status == RowStatus::empty) return status;
        const Accumulator<T> kept = choice_.template choose<T>(out);
        if (promises_of(inner_).simplex) detail::divide<T>(out, static_cast<T>(kept));
        return status;
    }

    template <Real T>
    requires Normalizer<N, T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("RestrictedNormalizer::jvp", z, p, v, out);
        if (promises_of(inner_).restrictable) {
            inner_.jvp(z, p, v, out);
        } else {
            std::vector<T> whole(z.size());
            inner_.apply(z, std::span<T>(whole));
            inner_.jvp(z, std::span<const T>(whole), v, out);
            for (std::size_t i = 0; i < p.size(); ++i)
                if (p[i] == T(0)) out[i] = T(0);
            if (!promises_of(inner_).simplex) return;
            const auto kept = kept_sum<T>(p, whole);
            detail::subtract_share<T>(p, out,
                                      [&](std::size_t top) { return detail::sum_of_others<T>(p, top); });
            for (std::size_t i = 0; i < p.size(); ++i)
                if (p[i] != T(0)) out[i] = static_cast<T>(Accumulator<T>(out[i]) / kept);
        }
    }
    template <Real T>
    requires Normalizer<N, T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("RestrictedNormalizer::vjp", z, p, w, out);
        if (promises_of(inner_).restrictable) {
            inner_.vjp(z, p, w, out);
        } else {
            const bool simplex = promises_of(inner_).simplex;
            std::vector<T> whole(z.size());
            inner_.apply(z, std::span<T>(whole));
            const auto kept = kept_sum<T>(p, whole);
            const auto centre = simplex ? detail::centred_row<T>(p, w) : detail::CentredRow<T>();
            for (std::size_t i = 0; i < p.size(); ++i) {
                if (p[i] == T(0))
                    out[i] = T(0);
                else if (simplex)
                    out[i] = static_cast<T>(Accumulator<T>((w[i] - centre.origin) - centre.mean) / kept);
                else
                    out[i] = w[i];
            }
            inner_.vjp(z, std::span<const T>(whole), std::span<const T>(out), out);
        }
    }

private:
    /// Sum of `whole` over the kept keys.
    template <Real T>
    static Accumulator<T> kept_sum(std::span<const T> p, const std::vector<T>& whole) {
        Accumulator<T> sum = 0;
        for (std::size_t i = 0; i < p.size(); ++i)
            if (p[i] != T(0)) sum += Accumulator<T>(whole[i]);
        return sum;
    }
    N inner_;
    Choice choice_;
};

/// c tanh(z/c) in front of a normaliser.
/// Throws. `invalid_argument` unless c > 0 and finite.
inline Softcap softcap(double cap) {
    detail::require(cap > 0 && std::isfinite(cap), "softcap", "the cap must be > 0 and finite", cap);
    return {cap};
}
/// z/T in front of a normaliser.
/// Throws. `invalid_argument` unless T > 0 and finite.
inline Temperature temperature(double value) { return {detail::checked_temperature("temperature", value)}; }
/// The k largest weights behind a normaliser.
/// Throws. `invalid_argument` unless k >= 1.
inline TopK top_k(Index k) {
    detail::require(k >= 1, "top_k", "k must be >= 1", k);
    return {k};
}
/// The smallest set of largest weights with the share `mass` behind a normaliser.
/// Throws. `invalid_argument` unless 0 < mass <= 1.
inline TopP top_p(double mass) {
    detail::require(mass > 0 && mass <= 1, "top_p", "the mass must be in (0, 1]", mass);
    return {mass};
}

/// The map in front of the normaliser.
template <class Map, class N>
requires(std::same_as<Map, Softcap> || std::same_as<Map, Temperature>)
MappedNormalizer<Map, N> operator|(Map map, N normalizer) {
    return {map, std::move(normalizer)};
}
/// The choice behind the normaliser.
template <class N, class Choice>
requires(std::same_as<Choice, TopK> || std::same_as<Choice, TopP>)
RestrictedNormalizer<N, Choice> operator|(N normalizer, Choice choice) {
    return {std::move(normalizer), choice};
}

} // namespace v0_2
} // namespace attnscope
