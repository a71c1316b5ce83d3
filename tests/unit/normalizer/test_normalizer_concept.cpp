// The Normalizer concept takes a small class of the user's, and refuses one that lacks a member.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>

namespace {

using attnscope::Index;
using attnscope::NormalizerTraits;
using attnscope::Real;
using attnscope::RowStatus;

/// Weights proportional to 1 + max(z, 0): all that a user has to write.
struct Ramp {
    static constexpr NormalizerTraits traits{.simplex = true, .order_preserving = true};
    static constexpr std::string_view name() { return "ramp"; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        T sum = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            sum += out[i] = std::isinf(z[i]) ? T(0) : 1 + std::max(z[i], T(0));
        if (!(sum > 0)) return RowStatus::empty;
        for (T& p : out) p /= sum;
        return RowStatus::normal;
    }
    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        T moved = 0;
        for (std::size_t i = 0; i < z.size(); ++i) moved += out[i] = slope(z[i], p[i]) * v[i];
        for (std::size_t i = 0; i < z.size(); ++i) out[i] -= p[i] * moved;
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        T mean = 0;
        for (std::size_t i = 0; i < z.size(); ++i) mean += p[i] * w[i];
        for (std::size_t i = 0; i < z.size(); ++i) out[i] = slope(z[i], p[i]) * (w[i] - mean);
    }

private:
    /// F'/sum F = p F'/F
    template <Real T>
    static T slope(T z, T p) {
        return z > T(0) && p > T(0) ? p / (1 + z) : T(0);
    }
};

struct WithoutVjp {
    static constexpr NormalizerTraits traits{};
    static constexpr std::string_view name() { return "no vjp"; }
    template <Real T>
    RowStatus apply(std::span<const T>, std::span<T>) const {
        return RowStatus::normal;
    }
    template <Real T>
    void jvp(std::span<const T>, std::span<const T>, std::span<const T>, std::span<T>) const {}
};

struct WithoutTraits : WithoutVjp {
    template <Real T>
    void vjp(std::span<const T>, std::span<const T>, std::span<const T>, std::span<T>) const {}
    static constexpr int traits = 0;
};

struct WithoutStatus : Ramp {
    template <Real T>
    void apply(std::span<const T>, std::span<T>) const {}
};

struct OnlyFloat {
    static constexpr NormalizerTraits traits{};
    static constexpr std::string_view name() { return "float"; }
    RowStatus apply(std::span<const float>, std::span<float>) const { return RowStatus::normal; }
    void jvp(std::span<const float>, std::span<const float>, std::span<const float>, std::span<float>) const {}
    void vjp(std::span<const float>, std::span<const float>, std::span<const float>, std::span<float>) const {}
};

static_assert(attnscope::Normalizer<Ramp, float>);
static_assert(attnscope::Normalizer<Ramp, double>);
static_assert(attnscope::Normalizer<Ramp, long double>);
static_assert(!attnscope::Normalizer<Ramp, int>);
static_assert(!attnscope::HasLogSumExp<Ramp, double>);
static_assert(!attnscope::Normalizer<WithoutVjp, double>);
static_assert(!attnscope::Normalizer<WithoutTraits, double>);
static_assert(!attnscope::Normalizer<WithoutStatus, double>);
static_assert(attnscope::Normalizer<OnlyFloat, float>);
static_assert(!attnscope::Normalizer<OnlyFloat, double>);

template <class F>
constexpr bool both_normalizers = attnscope::HasLogSumExp<attnscope::PointwiseNormalizer<F>, float> &&
                                  attnscope::HasLogSumExp<attnscope::PointwiseNormalizer<F>, double>;
static_assert(attnscope::HasLogSumExp<attnscope::Softmax, float>);
static_assert(attnscope::HasLogSumExp<attnscope::Softmax, long double>);
static_assert(both_normalizers<attnscope::Exponential>);
static_assert(both_normalizers<attnscope::Sigmoid>);
static_assert(both_normalizers<attnscope::Softplus>);
static_assert(both_normalizers<attnscope::Quadratic>);
static_assert(attnscope::LogFunction<attnscope::Softplus, double>);
static_assert(attnscope::PositiveFunction<attnscope::Quadratic, double>);
static_assert(!attnscope::LogFunction<attnscope::Quadratic, double>);
static_assert(!attnscope::PositiveFunction<Ramp, double>);

} // namespace

TEST_CASE("a normaliser of the user's own works with every front door", "[normalizer]") {
    const Ramp ramp;
    const Eigen::Vector3d z(1, -2, 3);
    const auto p = attnscope::weights(ramp, z);
    CHECK(p[0] == Catch::Approx(2.0 / 7));
    CHECK(p[1] == Catch::Approx(1.0 / 7));
    CHECK(p[2] == Catch::Approx(4.0 / 7));
    const auto jacobian = attnscope::jacobian(ramp, z);
    // dp_i/dz_j = (1[i=j] - p_i) F'(z_j)/7
    CHECK(jacobian(0, 0) == Catch::Approx(5.0 / 49));
    CHECK(jacobian(1, 2) == Catch::Approx(-1.0 / 49));
    CHECK(jacobian(2, 1) == 0);
    const Eigen::Vector3d v(1, 1, 0);
    const auto moved = attnscope::jvp(ramp, z, v);
    const auto pulled = attnscope::vjp(ramp, z, v);
    for (Index i = 0; i < 3; ++i) {
        CHECK(moved[i] == Catch::Approx(jacobian.row(i).dot(v)));
        CHECK(pulled[i] == Catch::Approx(jacobian.col(i).dot(v)).margin(1e-15));
    }
    const Eigen::MatrixXd q = Eigen::MatrixXd::Identity(2, 2), k = Eigen::MatrixXd::Identity(3, 2),
                          values = Eigen::MatrixXd::Ones(3, 1);
    const auto attention = attnscope::attend(q, k, values, ramp, attnscope::Mask::causal());
    CHECK(attention.output(0, 0) == Catch::Approx(1));
    CHECK(std::isnan(attention.log_sum_exp[0])); // it has none
    const auto g = attnscope::finite_difference(ramp, z, v, 0.5);
    CHECK(g > 0);
}

TEST_CASE("names of normalisers", "[normalizer]") {
    CHECK(attnscope::Softmax::name() == "softmax");
    CHECK(attnscope::PointwiseNormalizer<attnscope::Exponential>{}.name() == "exp");
    CHECK(attnscope::PointwiseNormalizer<attnscope::Sigmoid>{}.name() == "sigmoid");
    CHECK(attnscope::PointwiseNormalizer<attnscope::Softplus>{}.name() == "softplus");
    CHECK(attnscope::PointwiseNormalizer<attnscope::Quadratic>{}.name() == "quadratic");
    CHECK(name_of(RowStatus::normal) == "normal");
    CHECK(name_of(RowStatus::empty) == "empty");
    CHECK(name_of(RowStatus::infinite) == "infinite");
    CHECK(name_of(RowStatus::nan) == "nan");
}

TEMPLATE_TEST_CASE("the log-sum-exp at inverse temperature 0 is that of the number of keys", "[normalizer]",
                   float, double) {
    using T = TestType;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const T huge = std::numeric_limits<T>::max() / 8;
    const auto of = [](const auto& normalizer, const std::vector<T>& z) {
        return normalizer.template log_sum_exp<T>(std::span<const T>(z));
    };
    const attnscope::ScalableSoftmax scalable;
    CHECK(of(scalable, {huge}) == 0); // s log 1 = 0
    CHECK(of(scalable, {-infinity, -huge}) == 0);
    const attnscope::ScalableSoftmax flat(0);
    CHECK(of(flat, {huge, 0, -huge}) == Catch::Approx(std::log(3.0)));
    CHECK(of(flat, {-infinity, -infinity}) == -infinity);
    CHECK(of(flat, {0, infinity}) == infinity);
    CHECK(std::isnan(of(flat, {0, std::numeric_limits<T>::quiet_NaN()})));
    // A target that all keys together just reach: beta = 0.
    CHECK(of(attnscope::ParticipationTargetSoftmax(3), {huge, 0, -huge}) == Catch::Approx(std::log(3.0)));
}
