// The paper's general family: any positive function F, normalised by its sum.
#pragma once

#include <attnscope/normalizer/pointwise_functions.hpp>
#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A positive function with its derivative: f(z) = F(z) >= 0, f.derivative(z) = F'(z), f.name().
template <class F, class T>
concept PositiveFunction = Real<T> && std::copyable<F> && requires(const F f, T z) {
    { f(z) } -> std::convertible_to<T>;
    { f.derivative(z) } -> std::convertible_to<T>;
    { f.name() } -> std::convertible_to<std::string_view>;
};

/// One that also offers log F and (log F)' = F'/F, so that rows whose F overflows or underflows stay exact.
template <class F, class T>
concept LogFunction = PositiveFunction<F, T> && requires(const F f, T z) {
    { f.log(z) } -> std::convertible_to<T>;
    { f.log_derivative(z) } -> std::convertible_to<T>;
};

/// One that also evaluates F(z)/c over packets (packets.hpp), c > 0 the same for the whole row: f.packet(m) for
/// a row whose largest logit m is finite. z = -inf may give anything. `has_packet()`, where it exists, says
/// whether it may be asked.
template <class F, class T>
concept PacketFunction = PositiveFunction<F, T> && requires(const F f, T m, detail::Packet<T> z) {
    { f.packet(m)(z) } -> std::same_as<detail::Packet<T>>;
};

/// A function that is 0 at some logits says `has_zeros`.
template <class F>
concept HasZeros = requires { F::has_zeros; };

/// A function with an exponent that people train says its name.
template <class F>
concept HasExponent = requires { F::exponent_name(); };

/// Scalars over which F can be normalised.
template <class T, class F>
concept ScalarOfFunction = PositiveFunction<F, T>;

/// The paper's general family for a positive F.
/// Formula. p_i = F(z_i)/sum_j F(z_j). J = (I - p 1^T) diag(g), g_i = F'(z_i)/sum F = p_i F'(z_i)/F(z_i). An
/// entry of J v is exact to a few units of g_i |v_i| (1 - p_i) + p_i sum_{j != i} |g_j v_j|, one of J^T w to
/// a few units of |g_i| (|w_i - w_k| + sum_j p_j |w_j - w_k|), k the key of a weight above 1/2, else any;
/// both beside the error of F'/F.
/// Special rows. z = -inf is masked: weight exactly 0 and F is not asked. A row whose F sums to 0 gives the
/// zero row (`empty`); if F is infinite at some keys (and F offers no logarithm) they share the mass
/// (`infinite`); +inf logits likewise, unless F stays finite there.
/// Cost. A few calls of F a key, no allocation.
/// Throws. `invalid_argument` when F returns a negative number.
/// Source. P, the general family.
/// Example, a function of your own:
///     struct Bell {
///         template <Real T> T operator()(T z) const { return std::exp(-z * z / 2); }
///         template <Real T> T derivative(T z) const { return -z * (*this)(z); }
///         static constexpr std::string_view name() { return "bell"; }
///     };
///     const Eigen::VectorXd z = Eigen::VectorXd::LinSpaced(5, -2, 2);
///     const Eigen::VectorXd p = weights(PointwiseNormalizer<Bell>(), z);
template <class F>
class PointwiseNormalizer {
public:
    static constexpr NormalizerTraits traits{.simplex = true, .sparse = HasZeros<F>, .restrictable = true};

    PointwiseNormalizer() = default;
    explicit PointwiseNormalizer(F f) : f_(std::move(f)) {}

    std::string_view name() const { return f_.name(); }
    const F& function() const { return f_; }

    template <ScalarOfFunction<F> T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("PointwiseNormalizer::apply", z, out);
        if constexpr (PacketFunction<F, T>) {
            bool usable = true;
            if constexpr (requires { f_.has_packet(); }) usable = f_.has_packet();
            const T m = detail::row_max<T>(z);
            // The sum over the keys must not overflow either.
            if (usable && std::abs(m) <= std::numeric_limits<T>::max() / (T(4) * static_cast<T>(z.size() + 1)))
                return apply_packets<T>(z, f_.packet(m), out);
        }
        if constexpr (LogFunction<F, T>) {
            std::transform(z.begin(), z.end(), out.begin(), [&](T x) { return masked(x) ? x : f_.log(x); });
            return Softmax{}.apply<T>(std::span<const T>(out), out);
        } else {
            Accumulator<T> sum = 0;
            bool infinite = false;
            for (std::size_t i = 0; i < z.size(); ++i) {
                const T value = masked(z[i]) ? T(0) : static_cast<T>(f_(z[i]));
                if (value < T(0)) detail::fail("PointwiseNormalizer", "F must be positive", value);
                infinite = infinite || value == std::numeric_limits<T>::infinity();
                sum += Accumulator<T>(value);
                out[i] = value;
            }
            if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
            if (infinite) return detail::fill_special<T>(RowStatus::infinite, std::span<const T>(out), out);
            if (sum == 0) return RowStatus::empty;
            if (std::isinf(sum)) { // only the sum overflowed
                sum = 0;
                for (T& p : out) sum += Accumulator<T>(p /= static_cast<T>(out.size()));
            }
            for (T& p : out) p = static_cast<T>(Accumulator<T>(p) / sum);
            return RowStatus::normal;
        }
    }

    template <ScalarOfFunction<F> T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("PointwiseNormalizer::jvp", z, p, v, out);
        for (std::size_t i = 0; i < z.size(); ++i) out[i] = p[i] == T(0) ? T(0) : gradient(z[i], p[i]) * v[i];
        detail::subtract_share<T>(p, out, [&](std::size_t top) { return detail::sum_of_others<T>(p, top); });
    }

    template <ScalarOfFunction<F> T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        detail::require_same_size<T>("PointwiseNormalizer::vjp", z, p, w, out);
        const auto row = detail::centred_row<T>(p, w);
        for (std::size_t i = 0; i < z.size(); ++i)
            out[i] = p[i] == T(0) ? T(0) : gradient(z[i], p[i]) * ((w[i] - row.origin) - row.mean);
    }

    /// log sum_i F(z_i)
    template <ScalarOfFunction<F> T>
    T log_sum_exp(std::span<const T> z) const {
        // log-sum-exp of log F, updated term by term: no buffer.
        using A = Accumulator<T>;
        constexpr A infinity = std::numeric_limits<A>::infinity();
        A m = -infinity, sum = 0;
        for (const T x : z) {
            if (masked(x)) continue;
            const A term = A(log_value(x));
            if (std::isnan(term) || term == infinity) return static_cast<T>(term);
            if (term == -infinity) continue;
            if (term > m) {
                sum = sum * std::exp(m - term) + 1;
                m = term;
            } else {
                sum += std::exp(term - m);
            }
        }
        return static_cast<T>(m + std::log(sum > 0 ? sum : 1));
    }

    static constexpr std::string_view parameter_name()
    requires HasExponent<F>
    {
        return F::exponent_name();
    }
    /// dp/dk = p (log z - E_p log z) for F = max(z, 0)^k
    template <Real T>
    requires HasExponent<F>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("PointwiseNormalizer::parameter_derivative", z, p, out);
        using A = Accumulator<T>;
        A mean = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (p[i] > T(0)) mean += A(p[i] * std::log(z[i]));
        if (std::isinf(mean)) { // keys of +inf share the mass whatever k is
            std::fill(out.begin(), out.end(), T(0));
            return;
        }
        for (std::size_t i = 0; i < z.size(); ++i)
            out[i] = p[i] == T(0) ? T(0) : static_cast<T>(A(p[i]) * (A(std::log(z[i])) - mean));
    }

    /// g_i = F'(z_i)/sum F = p_i (log F)'(z_i); 0 where the weight is 0.
    template <ScalarOfFunction<F> T>
    T gradient(T z, T p) const {
        return p == T(0) ? T(0) : p * log_derivative(z);
    }

    /// The same of a row.
    template <ScalarOfFunction<F> T>
    void gradients(std::span<const T> z, std::span<const T> p, std::span<T> g) const {
        if constexpr (requires(detail::Packet<T> x) { f_.template log_derivative<T>(x); }) {
            detail::for_each_lane<T>(detail::size<T>(z), [&](const auto& lane) {
                lane.store(g.data(),
                           lane(p.data(), T(0)) * f_.template log_derivative<T>(lane(z.data(), T(0))));
            });
        } else {
            for (std::size_t i = 0; i < z.size(); ++i) g[i] = gradient(z[i], p[i]);
        }
    }

    /// F'(z)/F(z); 0 where F is infinite.
    template <ScalarOfFunction<F> T>
    T log_derivative(T z) const {
        if constexpr (LogFunction<F, T>)
            return static_cast<T>(f_.log_derivative(z));
        else if (const T value = static_cast<T>(f_(z)); value <= std::numeric_limits<T>::max())
            return static_cast<T>(f_.derivative(z)) / value;
        else // NaN stays; where F overflows the quotient is next to nothing
            return value == value ? T(0) : value;
    }

    /// log F(z)
    template <ScalarOfFunction<F> T>
    T log_value(T z) const {
        if constexpr (LogFunction<F, T>)
            return static_cast<T>(f_.log(z));
        else
            return static_cast<T>(std::log(f_(z)));
    }

private:
    template <Real T, class Packet>
    RowStatus apply_packets(std::span<const T> z, const Packet& f, std::span<T> out) const {
        using P = detail::Packet<T>;
        const P lowest = std::numeric_limits<T>::lowest(), zero = T(0);
        const auto sum = detail::sum_lanes<T>(detail::size<T>(z), [&](const auto& lane) {
            const auto x = lane(z.data(), -std::numeric_limits<T>::infinity());
            const auto value = select_below(x, lowest, zero, f(x));
            lane.store(out.data(), value);
            return value;
        });
        // The logits are gone if this was in place, but the maximum was finite: only NaN can be special.
        if (!(sum == sum)) return detail::fill_special<T>(RowStatus::nan, z, out);
        if (sum == 0) return RowStatus::empty;
        detail::scale_weights<T>(static_cast<T>(1 / sum), out);
        return RowStatus::normal;
    }
    template <Real T>
    static bool masked(T z) {
        return z == -std::numeric_limits<T>::infinity();
    }
    F f_{};
};

} // namespace v0_2
} // namespace attnscope
