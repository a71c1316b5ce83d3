// Softmax whose inverse temperature grows with the number of visible keys: scalable softmax, log-length
// scaling, YaRN's factor.
#pragma once

#include <attnscope/normalizer/softmax.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Keys with z > -inf (NaN counts), and the largest logit, as `row_max` gives it.
template <Real T>
struct VisibleKeys {
    Index count;
    T max;
};
template <Real T>
VisibleKeys<T> visible_keys(RowIn<T> z) {
    using P = Packet<T>;
    constexpr Index stride = 4 * P::size, block = stride << 16; // of which the count is exact in T
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const P lowest = std::numeric_limits<T>::lowest(), zero = T(0), one = T(1);
    P high[4], seen[4];
    const auto meet = [&](int j, P x) {
        high[j] = max(high[j], x);
        seen[j] += select_below(x, lowest, zero, one);
    };
    for (auto& x : high) x = -infinity;
    Index count = 0;
    for (Index begin = 0, n = size(z); begin < n; begin += block) {
        const Index end = std::min(n, begin + block);
        for (auto& x : seen) x = zero;
        Index i = begin;
        for (; i + stride <= end; i += stride)
            for (int j = 0; j < 4; ++j) meet(j, P::load(z.data() + i + j * P::size));
        for (; i + P::size <= end; i += P::size) meet(0, P::load(z.data() + i));
        if (i < end) meet(0, P::load_partial(z.data() + i, end - i, -infinity));
        count += static_cast<Index>(reduce_add((seen[0] + seen[1]) + (seen[2] + seen[3])));
    }
    return {count, reduce_max(max(max(high[0], high[1]), max(high[2], high[3])))};
}
template <Real T>
Index count_visible(RowIn<T> z) {
    return visible_keys<T>(z).count;
}

} // namespace detail

/// beta = s log n: scalable softmax (SSMax, arXiv:2501.19399).
struct ScalableSchedule {
    double scale = 0.43;
    static constexpr std::string_view name() { return "ssmax"; }
    static constexpr std::string_view parameter_name() { return "s"; }
    double inverse_temperature(double n) const { return scale * std::log(n); }
    double derivative(double n) const { return std::log(n); } ///< d beta/d s
};

/// beta = kappa log n: length scaling that keeps the entropy of Gaussian logits (kappa = 1/log n_train).
struct LogLengthSchedule {
    double kappa = 1;
    static constexpr std::string_view name() { return "logn"; }
    static constexpr std::string_view parameter_name() { return "kappa"; }
    double inverse_temperature(double n) const { return kappa * std::log(n); }
    double derivative(double n) const { return std::log(n); }
};

/// beta = (0.1 log(n/n_train) + 1)^2 beyond the training length, 1 within it: the factor on the logits that
/// YaRN (arXiv:2309.00071, eq. 21 and 22: 1/sqrt(t) scales q and k each) recommends.
struct YarnSchedule {
    double train_length = 1024;
    static constexpr std::string_view name() { return "yarn"; }
    static constexpr std::string_view parameter_name() { return "train_length"; }
    double inverse_temperature(double n) const {
        if (n <= train_length) return 1;
        const double root = 0.1 * std::log(n / train_length) + 1;
        return root * root;
    }
    double derivative(double n) const {
        return n <= train_length ? 0 : -0.2 * (0.1 * std::log(n / train_length) + 1) / train_length;
    }
};

/// Softmax whose inverse temperature depends on the number of visible keys.
/// Formula. p = softmax(beta(n) z), n = number of keys with z > -inf; J = beta (diag p - p p^T) where n stays
/// the same. beta = 0 (one visible key, or scale 0) gives equal weights.
/// Special rows. See `RowStatus`.
/// Cost. O(n) for every member, no allocation.
template <class Schedule>
class LengthScaledSoftmax {
public:
    static constexpr NormalizerTraits traits = Softmax::traits;

    explicit LengthScaledSoftmax(Schedule schedule) : schedule_(schedule) {}

    static constexpr std::string_view name() { return Schedule::name(); }
    const Schedule& schedule() const { return schedule_; }

    /// beta for n visible keys.
    double inverse_temperature(Index n) const {
        return n > 0 ? schedule_.inverse_temperature(static_cast<double>(n)) : 0.0;
    }
    /// beta of a row.
    template <Real T>
    T row_inverse_temperature(std::span<const T> z) const {
        return beta<T>(detail::count_visible<T>(z));
    }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        detail::require_same_size<T>("LengthScaledSoftmax::apply", z, out);
        const auto [n, m] = detail::visible_keys<T>(z);
        return detail::softmax_row<T>(z, m, m, beta<T>(n), 0, out);
    }

    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        detail::require_same_size<T>("LengthScaledSoftmax::jvp", z, p, v, out);
        detail::softmax_product<T>(p, v, row_inverse_temperature<T>(z), out);
    }
    /// J is symmetric: the same as `jvp`.
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        jvp<T>(z, p, w, out);
    }

    /// log sum_i e^{beta z_i}
    template <Real T>
    T log_sum_exp(std::span<const T> z) const {
        return detail::log_sum_exp_at<T>(z, inverse_temperature(detail::count_visible<T>(z)));
    }

    static constexpr std::string_view parameter_name() { return Schedule::parameter_name(); }
    /// dp/d(parameter) = (d beta/d parameter) p (z - E_p z)
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require_same_size<T>("LengthScaledSoftmax::parameter_derivative", z, p, out);
        const Index n = detail::count_visible<T>(z);
        const double slope = n > 0 ? schedule_.derivative(static_cast<double>(n)) : 0.0;
        detail::inverse_temperature_product<T>(z, p, T(1), static_cast<T>(slope), out);
    }

private:
    template <Real T>
    T beta(Index n) const {
        // Inside the normal numbers, so that 0 * inf cannot arise.
        return std::clamp(static_cast<T>(inverse_temperature(n)), std::numeric_limits<T>::min(),
                          std::numeric_limits<T>::max());
    }
    Schedule schedule_;
};

/// Scalable softmax, softmax(s log n z), s >= 0 (arXiv:2501.19399, who train s; 0.43 is the mean that they
/// report).
class ScalableSoftmax : public LengthScaledSoftmax<ScalableSchedule> {
public:
    /// Throws. `invalid_argument` unless s is >= 0 and finite.
    explicit ScalableSoftmax(double s = 0.43)
        : LengthScaledSoftmax(ScalableSchedule{detail::checked_scale("ScalableSoftmax", "s", s)}) {}
    double scale() const { return schedule().scale; }
};

/// softmax(kappa log n z), kappa >= 0.
class LogLengthSoftmax : public LengthScaledSoftmax<LogLengthSchedule> {
public:
    /// Throws. `invalid_argument` unless kappa is >= 0 and finite.
    explicit LogLengthSoftmax(double kappa)
        : LengthScaledSoftmax(LogLengthSchedule{detail::checked_scale("LogLengthSoftmax", "kappa", kappa)}) {}
    /// kappa = 1/log n_train: beta = 1 at the training length.
    /// Throws. `invalid_argument` unless n_train >= 2.
    static LogLengthSoftmax trained_at(Index n_train) {
        detail::require(n_train >= 2, "LogLengthSoftmax::trained_at", "the training length must be >= 2",
                        n_train);
        return LogLengthSoftmax(1 / std::log(static_cast<double>(n_train)));
    }
};

/// softmax(beta z) with YaRN's beta for a model trained at a length.
class YarnSoftmax : public LengthScaledSoftmax<YarnSchedule> {
public:
    /// Throws. `invalid_argument` unless train_length >= 1.
    explicit YarnSoftmax(Index train_length)
        : LengthScaledSoftmax(YarnSchedule{static_cast<double>(checked(train_length))}) {}

private:
    static Index checked(Index train_length) {
        detail::require(train_length >= 1, "YarnSoftmax", "the training length must be >= 1", train_length);
        return train_length;
    }
};

} // namespace v0_2
} // namespace attnscope
