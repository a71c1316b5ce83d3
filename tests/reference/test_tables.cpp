// Every figure of a row against values computed in 40 digits. The tables come from generate_tables.py; its
// option
// --check says whether they are still what it writes. Tolerances are forward errors: u is half a unit in the
// last place of the scalar that is tested, and each comment counts the roundings.
#include "tables.hpp"

#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <iomanip>
#include <iostream>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace attnscope_reference;
using Exact = long double;
using attnscope::Accumulator;
using attnscope::Index;
using attnscope::RowIn;
using attnscope::RowOut;

template <class T>
constexpr Exact unit_of = static_cast<Exact>(std::numeric_limits<T>::epsilon()) / 2;

template <class T>
constexpr std::string_view name_of_scalar = std::same_as<T, float>    ? "float"
                                            : std::same_as<T, double> ? "double"
                                                                      : "long double";

/// Checks one figure on all rows, and prints its largest and mean error with the worst row.
class Figure {
public:
    /// `scale`: the unit in which errors are printed; `floor`: results this small are checked, but not counted.
    Figure(std::string_view scalar, std::string_view figure, Exact scale, Exact floor)
        : scalar_(scalar), figure_(figure), scale_(scale), floor_(floor) {}
    Figure(const Figure&) = delete;
    Figure& operator=(const Figure&) = delete;
    ~Figure() {
        std::cout << std::left << std::setw(12) << scalar_ << std::setw(27) << figure_ << "max "
                  << std::setprecision(3) << std::setw(9) << worst_ << " mean " << std::setw(9)
                  << (count_ > 0 ? sum_ / static_cast<Exact>(count_) : 0) << " ulp";
        if (count_ > 0) std::cout << "  (" << worst_row_ << ")";
        std::cout << '\n';
    }

    /// |value - exact| <= tolerance; the rounding of the table itself counts for long double.
    void check(const std::string& row, Exact value, Exact exact, Exact tolerance) {
        INFO(scalar_ << " " << figure_ << " of " << row);
        const Exact error = std::abs(value - exact);
        if (!(error <= tolerance + unit_of<Exact> * std::abs(exact))) {
            CAPTURE(value, exact, error, tolerance);
            FAIL_CHECK("error above its bound");
        } else {
            SUCCEED();
        }
        if (std::abs(exact) <= floor_) return;
        const Exact units = error / (scale_ * std::abs(exact));
        sum_ += units;
        ++count_;
        if (units >= worst_) worst_ = units, worst_row_ = row;
    }

private:
    std::string_view scalar_, figure_;
    Exact scale_, floor_;
    Exact worst_ = 0, sum_ = 0;
    std::size_t count_ = 0;
    std::string worst_row_;
};

template <class T>
std::vector<T> convert(std::span<const double> values) {
    return {values.begin(), values.end()};
}

/// Units of error in one exp: 1.02 ulp, an ulp being at most two units.
constexpr Exact exp_units = 2.04L;

/// Units of error in a sum of n positive terms: each passes at most 64 + 8 additions of a block, then one a
/// block.
inline Exact sum_units(Index n) {
    const Exact count = static_cast<Exact>(n);
    return std::min(count, Exact(72)) + count / 64;
}

/// What the tolerances need to know of a row.
struct Shape {
    Index visible = 0;
    Exact largest = 0;       // max |z| over the visible keys
    Exact spread = 0;        // (max - min)/T
    Exact gap = 0;           // (first - second)/T
    Exact mean_distance = 0; // E_p (max - z)/T
};

Shape shape_of(std::span<const double> z, std::span<const Exact> p, double temperature) {
    Shape shape;
    Exact first = -std::numeric_limits<Exact>::infinity(), second = first, last = -first;
    for (const double x : z) {
        if (x == -infinity) continue;
        ++shape.visible;
        shape.largest = std::max<Exact>(shape.largest, std::abs(x));
        last = std::min<Exact>(last, x);
        if (x > first) {
            second = first;
            first = x;
        } else {
            second = std::max<Exact>(second, x);
        }
    }
    shape.spread = (first - last) / temperature;
    shape.gap = shape.visible > 1 ? (first - second) / temperature : 0;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (z[i] != -infinity) shape.mean_distance += p[i] * (first - z[i]) / temperature;
    return shape;
}

/// What keys may add that the scalar counts as 0, because e^{-u} is below its smallest normal number: u e^{-u}
/// for each key, u just above the cutoff.
template <class T>
Exact underflow(Index n) {
    return static_cast<Exact>(std::numeric_limits<T>::min()) * static_cast<Exact>(n) *
           (2 - static_cast<Exact>(attnscope::detail::exp_cutoff<T>()));
}

template <class T>
constexpr Exact printed_floor = static_cast<Exact>(std::numeric_limits<T>::min()) * Exact(1e12);

std::string label(const char* name, double temperature) {
    return std::string(name) + ", T=" + attnscope::detail::to_text(temperature);
}

/// Relative error of a computed weight at distance `distance` = (max - z)/T below the largest: z - m, 1/T and
/// their product are rounded (3 of the exponent), exp, then the sum (a mean of such errors and its additions),
/// 1/sum and the product.
template <class T>
Exact weight_error(const Shape& shape, Exact distance) {
    return unit_of<T> *
           (3 * distance + exp_units + 3 * shape.mean_distance + exp_units + sum_units(shape.visible) + 2);
}

/// The same for all weights that matter for a norm: those more than 40 below the second one change it by less
/// than e^-40 of itself.
template <class T>
Exact weight_error(const Shape& shape) {
    return weight_error<T>(shape, std::min(shape.spread, shape.gap + 40));
}

} // namespace

TEMPLATE_TEST_CASE("softmax weights and log-sum-exp agree with 40 digits", "[reference]", float, double,
                   long double) {
    using T = TestType;
    Figure weights(name_of_scalar<T>, "weight", 2 * unit_of<T>, printed_floor<T>);
    Figure log_sum_exp(name_of_scalar<T>, "log-sum-exp", 2 * unit_of<T>, printed_floor<T>);
    for (const SoftmaxCase& c : softmax_cases) {
        const std::span<const double> logits(softmax_logits + c.logits_begin, static_cast<std::size_t>(c.size));
        const std::span<const Exact> exact(softmax_weights + c.weights_begin, static_cast<std::size_t>(c.size));
        const std::vector<T> z = convert<T>(logits);
        std::vector<T> p(z.size());
        const attnscope::Softmax softmax(c.temperature);
        REQUIRE(softmax.apply<T>(RowIn<T>(z), RowOut<T>(p)) == attnscope::RowStatus::normal);
        const Shape shape = shape_of(logits, exact, c.temperature);
        const double top = *std::max_element(logits.begin(), logits.end());
        for (std::size_t i = 0; i < z.size(); ++i) {
            const std::string row = label(c.name, c.temperature) + ", key " + std::to_string(i);
            if (logits[i] == -infinity) {
                INFO(row);
                CHECK(p[i] == T(0));
                continue;
            }
            const Exact error = weight_error<T>(shape, (top - logits[i]) / c.temperature);
            weights.check(row, p[i], exact[i], error * exact[i] + underflow<T>(1));
        }
        // m/T (1/T and the product), the logarithm of a sum with its error, the addition.
        const Exact m = std::abs(static_cast<Exact>(top)) / c.temperature;
        const Exact sum_error = 3 * shape.mean_distance + exp_units + sum_units(shape.visible);
        const Exact log_sum = std::log(static_cast<Exact>(shape.visible));
        log_sum_exp.check(label(c.name, c.temperature), softmax.log_sum_exp<T>(RowIn<T>(z)), c.log_sum_exp,
                          unit_of<T> * (2 * m + sum_error + 2 * log_sum + 2 * std::abs(c.log_sum_exp)));
    }
}

TEMPLATE_TEST_CASE("row statistics agree with 40 digits", "[reference]", float, double, long double) {
    using T = TestType;
    using A = Accumulator<T>;
    const std::string_view scalar = name_of_scalar<T>;
    const Exact unit = 2 * unit_of<T>, floor = printed_floor<T>, eps = 2 * unit_of<A>;
    Figure log_sum_exp(scalar, "row: log-sum-exp", unit, floor), entropy(scalar, "entropy", unit, floor),
        max_weight(scalar, "p1", unit, floor), second_weight(scalar, "p2", unit, floor),
        rest(scalar, "1-p1", unit, floor), s2(scalar, "S2", unit, floor), tail2(scalar, "1-S2", unit, floor),
        s3(scalar, "S3", unit, floor), participation(scalar, "participation ratio", unit, floor),
        mean(scalar, "mean logit", unit, floor), variance(scalar, "logit variance", unit, floor),
        centred(scalar, "centred norm", unit, floor);
    for (const SoftmaxCase& c : softmax_cases) {
        const std::span<const double> logits(softmax_logits + c.logits_begin, static_cast<std::size_t>(c.size));
        const std::span<const Exact> exact(softmax_weights + c.weights_begin, static_cast<std::size_t>(c.size));
        const std::vector<T> z = convert<T>(logits);
        const Shape shape = shape_of(logits, exact, c.temperature);
        const std::string name = label(c.name, c.temperature);
        const auto row = attnscope::row_statistics<T>(RowIn<T>(z), c.temperature);
        REQUIRE(row.normal());
        REQUIRE(row.visible == shape.visible);
        // The library's own promise for its sums; the figures follow by their conditioning.
        const Exact sum = row.sum_error(), lost = underflow<T>(c.size);
        const Exact temperature = c.temperature, m = std::abs(static_cast<Exact>(row.max_logit)) / temperature;

        log_sum_exp.check(name, row.log_sum_exp(), c.log_sum_exp,
                          eps * (m + std::abs(c.log_sum_exp) + 2 * std::log1p(static_cast<Exact>(row.r))) +
                              sum * c.rest + lost);
        entropy.check(name, row.entropy_nats(), c.entropy, (2 * sum + 8 * eps) * c.entropy + lost);
        max_weight.check(name, row.max_weight(), c.max_weight, (sum * c.rest + 2 * eps) * c.max_weight);
        second_weight.check(name, row.second_weight(), c.second_weight,
                            (eps * (2 * shape.gap + 4) + sum * c.rest) * c.second_weight);
        rest.check(name, row.rest(), c.rest, (sum + 2 * eps) * c.rest + lost);
        // A square doubles the error of its weight: q is known to 2 sum, c to 3 sum.
        s2.check(name, row.power_sum_2(), c.power_sum_2, (4 * sum + 4 * eps) * c.power_sum_2);
        participation.check(name, row.participation_ratio(), c.participation_ratio,
                            (4 * sum + 4 * eps) * c.participation_ratio);
        // r (2 + r) - q >= r (1 + r): the terms are at most 3 times the result.
        tail2.check(name, row.one_minus_power_sum_2(), c.one_minus_power_sum_2,
                    (6 * sum + 12 * eps) * c.one_minus_power_sum_2 + 2 * lost);
        s3.check(name, row.power_sum_3(), c.power_sum_3, (6 * sum + 6 * eps) * c.power_sum_3);
        mean.check(name, row.mean_logit(), c.mean_logit,
                   temperature * shape.mean_distance * (2 * sum + 3 * eps) +
                       eps * (shape.largest + std::abs(c.mean_logit)) + temperature * lost);
        // (1+r) v is at most 1+r times the numerator (1+r) v - t^2.
        variance.check(name, row.logit_variance(), c.logit_variance,
                       (4 * (1 + static_cast<Exact>(row.r)) * sum + 8 * (1 + static_cast<Exact>(row.r)) * eps) *
                               c.logit_variance +
                           temperature * temperature * lost * (2 - attnscope::detail::exp_cutoff<T>()));
        // The mean of n logits is exact to n/2 + 1 units of the largest, each difference and square to 2 more.
        const Exact n = static_cast<Exact>(shape.visible);
        centred.check(
            name, attnscope::centred_norm<T>(RowIn<T>(z), c.temperature), c.centred_norm,
            eps * ((n / 2 + 2) * std::sqrt(n) * shape.largest / temperature + (n / 2 + 4) * c.centred_norm));

        if (c.entropy >= 1e-8L && !std::same_as<T, long double>) {
            INFO(name);
            CHECK(std::abs(row.entropy_nats() - c.entropy) <=
                  (std::same_as<T, float> ? 1e-6L : 1e-13L) * c.entropy);
            CHECK(std::abs(row.rest() - c.rest) <= (std::same_as<T, float> ? 1e-6L : 1e-13L) * c.rest);
        }
    }
}

TEMPLATE_TEST_CASE("Renyi entropies agree with 40 digits, orders 1 -+ 1e-9 included", "[reference]", float,
                   double, long double) {
    using T = TestType;
    const Exact eps = 2 * unit_of<Accumulator<T>>;
    for (std::size_t k = 0; k < renyi_orders.size(); ++k) {
        const double order = renyi_orders[k];
        const std::string figure = "Renyi, order " + attnscope::detail::to_text(order);
        Figure renyi(name_of_scalar<T>, figure, 2 * unit_of<T>, printed_floor<T>);
        for (const SoftmaxCase& c : softmax_cases) {
            const std::span<const double> logits(softmax_logits + c.logits_begin,
                                                 static_cast<std::size_t>(c.size));
            const std::span<const Exact> exact(softmax_weights + c.weights_begin,
                                               static_cast<std::size_t>(c.size));
            const std::vector<T> z = convert<T>(logits);
            const Shape shape = shape_of(logits, exact, c.temperature);
            const Exact sum = attnscope::row_statistics<T>(RowIn<T>(z), c.temperature).sum_error();
            // Terms e^{-a u}: u is rounded twice, a u once more, exp and expm1 once each; their mean of a u is
            // at most a u_2 + 2 log n + 4. The sum has n additions. log(sum p^a) is a difference of two
            // logarithms that are together at most 3 times its size.
            const Exact n = static_cast<Exact>(shape.visible);
            const Exact a = std::isinf(order) ? 1 : std::max(order, 1.0);
            const Exact exponent = a * shape.gap + 2 * std::log(n) + 4;
            renyi.check(label(c.name, c.temperature),
                        attnscope::renyi_entropy_nats<T>(RowIn<T>(z), order, c.temperature), c.renyi[k],
                        3 * (sum + eps * (4 * exponent + n + 8)) * c.renyi[k] + 4 * underflow<T>(c.size));
        }
    }
}

TEMPLATE_TEST_CASE("products with the softmax Jacobian agree with 40 digits", "[reference]", float, double,
                   long double) {
    using T = TestType;
    Figure product(name_of_scalar<T>, "J v", 2 * unit_of<T>, printed_floor<T>);
    for (const SoftmaxCase& c : softmax_cases) {
        const auto size = static_cast<std::size_t>(c.size);
        const std::span<const double> logits(softmax_logits + c.logits_begin, size);
        const std::span<const Exact> exact(softmax_weights + c.weights_begin, size),
            right(softmax_products + c.weights_begin, size);
        const std::vector<T> z = convert<T>(logits);
        std::vector<T> p(size), v(size), jv(size), jtv(size);
        for (std::size_t i = 0; i < size; ++i) v[i] = T(1.25) + static_cast<T>(i % 3) / 2;
        const attnscope::Softmax softmax(c.temperature);
        softmax.apply<T>(RowIn<T>(z), RowOut<T>(p));
        softmax.jvp<T>(RowIn<T>(z), RowIn<T>(p), RowIn<T>(v), RowOut<T>(jv));
        softmax.vjp<T>(RowIn<T>(z), RowIn<T>(p), RowIn<T>(v), RowOut<T>(jtv));
        CHECK(jv == jtv);
        // (v_i - origin) - mean of v - origin: each weight brings its error, and the sums and four roundings
        // theirs.
        const Shape shape = shape_of(logits, exact, c.temperature);
        const std::size_t top =
            static_cast<std::size_t>(std::max_element(exact.begin(), exact.end()) - exact.begin());
        const Exact origin = exact[top] > 0.5L ? Exact(v[top]) : Exact(0), largest = logits[top];
        const auto weight = [&](std::size_t i) {
            return weight_error<T>(shape, (largest - logits[i]) / c.temperature);
        };
        Exact size_of_mean = 0, mean_error = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const Exact term = exact[i] * std::abs(Exact(v[i]) - origin);
            size_of_mean += term;
            mean_error +=
                term == 0 ? Exact(0) : term * (weight(i) + unit_of<T> * (sum_units(shape.visible) + 4));
        }
        for (std::size_t i = 0; i < size; ++i) {
            if (exact[i] == 0) {
                CHECK(jv[i] == 0);
                continue;
            }
            const Exact around = std::abs(Exact(v[i]) - origin) + size_of_mean;
            const Exact error = exact[i] * (mean_error + (weight(i) + 8 * unit_of<T>)*around) / c.temperature;
            product.check(label(c.name, c.temperature), jv[i], right[i],
                          error + underflow<T>(c.size) * 8 / Exact(c.temperature));
        }
    }
}

TEMPLATE_TEST_CASE("norms of the softmax Jacobian agree with 40 digits", "[reference]", float, double,
                   long double) {
    using T = TestType;
    const std::string_view scalar = name_of_scalar<T>;
    const Exact unit = 2 * unit_of<T>, floor = printed_floor<T>, eps = 2 * unit_of<Accumulator<T>>;
    Figure spectral(scalar, "spectral norm", unit, floor), frobenius(scalar, "Frobenius norm", unit, floor),
        column(scalar, "largest column", unit, floor), entry(scalar, "largest entry", unit, floor),
        one(scalar, "1->1", unit, floor), infinity_norm(scalar, "inf->inf", unit, floor);
    for (const SoftmaxCase& c : softmax_cases) {
        const std::span<const double> logits(softmax_logits + c.logits_begin, static_cast<std::size_t>(c.size));
        const std::span<const Exact> exact(softmax_weights + c.weights_begin, static_cast<std::size_t>(c.size));
        const std::vector<T> z = convert<T>(logits);
        std::vector<T> p(z.size());
        const attnscope::Softmax softmax(c.temperature);
        softmax.apply<T>(RowIn<T>(z), RowOut<T>(p));
        const auto norms = attnscope::jacobian_norms<T>(softmax, RowIn<T>(z), RowIn<T>(p));
        const Shape shape = shape_of(logits, exact, c.temperature);
        const std::string name = label(c.name, c.temperature);
        const Exact n = static_cast<Exact>(shape.visible), temperature = c.temperature;
        const Exact weight = weight_error<T>(shape);
        const Exact lost = underflow<T>(c.size) / temperature;
        // sum_j s_j (v_j - mean)^2 grows by at most 1 + e when every s_j does, and so does its maximum over v.
        // The solver works in T: the sums of a step, and 8 operations around them.
        const Exact solver = unit_of<T> * (2 * sum_units(shape.visible) + 16);
        spectral.check(name, norms.spectral.value, c.spectral, (weight + solver) * c.spectral + lost);
        INFO(name);
        CHECK(norms.spectral.converged);
        CHECK(norms.spectral.bracket.lower <= norms.spectral.value);
        CHECK(norms.spectral.value <= norms.spectral.bracket.upper);
        // Squares of entries are of degree 4 in the weights, and the terms are together at most 3 times the sum
        // of squares: 12 errors, halved by the root. One n for each sum over the row.
        const Exact figures = 6 * weight + (3 * n + 16) * eps;
        frobenius.check(name, norms.frobenius, c.norms.frobenius, figures * c.norms.frobenius + 2 * lost);
        column.check(name, norms.column, c.norms.column, figures * c.norms.column + 2 * lost);
        const Exact entries = 2 * weight + (n + 8) * eps;
        entry.check(name, norms.max_entry, c.norms.max_entry, entries * c.norms.max_entry + lost);
        one.check(name, norms.one, c.norms.one, entries * c.norms.one + 2 * lost);
        infinity_norm.check(name, norms.infinity, c.norms.infinity, entries * c.norms.infinity + 2 * lost);
        if (c.norms.infinity_to_one > 0 || shape.visible == 1) {
            const Exact slack = entries * c.norms.infinity_to_one + 4 * lost;
            CHECK(norms.infinity_to_one.lower <= c.norms.infinity_to_one + slack);
            CHECK(norms.infinity_to_one.upper >= c.norms.infinity_to_one - slack);
            if (c.max_weight > 0.5L) CHECK(norms.infinity_to_one.upper - norms.infinity_to_one.lower <= slack);
        }
    }
}

TEMPLATE_TEST_CASE("the largest eigenvalue of diag(s) - s s^T/S agrees with 40 digits", "[reference]", float,
                   double, long double) {
    using T = TestType;
    Figure eigenvalue(name_of_scalar<T>, "diag(s) - s s^T/S", 2 * unit_of<T>, printed_floor<T>);
    for (const DiagonalCase& c : diagonal_cases) {
        const std::vector<T> s =
            convert<T>(std::span<const double>(diagonal_elements + c.begin, static_cast<std::size_t>(c.size)));
        const auto norm = attnscope::diagonal_minus_rank_one_norm<T>(RowIn<T>(s));
        const Exact solver = unit_of<T> * (2 * sum_units(c.size) + 16);
        eigenvalue.check(c.name, norm.value, c.largest_eigenvalue, solver * c.largest_eigenvalue);
        INFO(c.name);
        CHECK(norm.converged);
        CHECK(norm.steps <= 8);
    }
}

namespace {

template <class T, class F>
void check_pointwise(std::string_view function, const F& f) {
    const std::string figure(function);
    const attnscope::PointwiseNormalizer<F> normalizer(f);
    const Exact unit = 2 * unit_of<T>, eps = 2 * unit_of<Accumulator<T>>;
    const std::string_view scalar = name_of_scalar<T>;
    const std::string weight_name = figure + " weight", sum_name = figure + " log sum",
                      spectral_name = figure + " spectral", frobenius_name = figure + " Frobenius",
                      column_name = figure + " column", entry_name = figure + " entry",
                      one_name = figure + " 1->1", infinity_name = figure + " inf->inf";
    Figure weights(scalar, weight_name, unit, printed_floor<T>),
        log_sum(scalar, sum_name, unit, printed_floor<T>),
        spectral(scalar, spectral_name, unit, printed_floor<T>),
        frobenius(scalar, frobenius_name, unit, printed_floor<T>),
        column(scalar, column_name, unit, printed_floor<T>), entry(scalar, entry_name, unit, printed_floor<T>),
        one(scalar, one_name, unit, printed_floor<T>),
        infinity_norm(scalar, infinity_name, unit, printed_floor<T>);
    std::size_t rows = 0;
    for (const PointwiseCase& c : pointwise_cases) {
        if (c.function != function) continue;
        ++rows;
        const std::span<const double> logits(pointwise_logits + c.logits_begin,
                                             static_cast<std::size_t>(c.size));
        const std::span<const Exact> exact(pointwise_weights + c.weights_begin,
                                           static_cast<std::size_t>(c.size));
        const std::vector<T> z = convert<T>(logits);
        std::vector<T> p(z.size());
        REQUIRE(normalizer.template apply<T>(RowIn<T>(z), RowOut<T>(p)) == attnscope::RowStatus::normal);
        // log F is exact to 8 roundings of max(|log F|, 1); its spread goes through softmax.
        Exact low = infinity, high = -infinity, size = 1, visible = 0;
        for (const double x : logits) {
            if (x == -infinity) continue;
            ++visible;
            const Exact value = std::log(f(static_cast<Exact>(x)));
            low = std::min(low, value);
            high = std::max(high, value);
            size = std::max(size, std::abs(value));
        }
        const auto count = static_cast<Index>(visible);
        const Exact weight = unit_of<T> * (16 * size + 6 * (high - low) + 2 * exp_units + sum_units(count) + 4);
        for (std::size_t i = 0; i < z.size(); ++i)
            weights.check(std::string(c.name) + ", key " + std::to_string(i), p[i], exact[i],
                          weight * exact[i] + (logits[i] == -infinity ? 0 : underflow<T>(1)));
        log_sum.check(c.name, normalizer.template log_sum_exp<T>(RowIn<T>(z)), c.log_sum_exp,
                      unit_of<T> * (2 * std::abs(c.log_sum_exp) + 16 * size + 4 * visible + (high - low)));

        const auto norms = attnscope::jacobian_norms(normalizer, RowIn<T>(z), RowIn<T>(p));
        // An entry (1[i=j] - p_i) g_j is exact to two weights and the derivative F'/F (8 roundings); norms are
        // those of the entries' absolute values, so the spectral norm moves by at most that share of Frobenius.
        const Exact entries = 2 * weight + (2 * visible + 24) * eps;
        const Exact lost = underflow<T>(c.size) * 4;
        spectral.check(c.name, norms.spectral.value, c.spectral, entries * c.norms.frobenius + lost);
        frobenius.check(c.name, norms.frobenius, c.norms.frobenius, entries * c.norms.frobenius + lost);
        column.check(c.name, norms.column, c.norms.column, entries * c.norms.column + lost);
        entry.check(c.name, norms.max_entry, c.norms.max_entry, entries * c.norms.max_entry + lost);
        one.check(c.name, norms.one, c.norms.one, entries * c.norms.one + lost);
        infinity_norm.check(c.name, norms.infinity, c.norms.infinity, entries * c.norms.infinity + lost);
        INFO(c.name);
        CHECK(norms.spectral.converged);
        const Exact slack = entries * c.norms.infinity_to_one + lost;
        CHECK(norms.infinity_to_one.lower <= c.norms.infinity_to_one + slack);
        CHECK(norms.infinity_to_one.upper >= c.norms.infinity_to_one - slack);
    }
    CHECK(rows == 10);
}

} // namespace

TEMPLATE_TEST_CASE("the general family agrees with 40 digits", "[reference]", float, double, long double) {
    check_pointwise<TestType>("exp", attnscope::Exponential{});
    check_pointwise<TestType>("sigmoid", attnscope::Sigmoid{});
    check_pointwise<TestType>("softplus", attnscope::Softplus{});
    check_pointwise<TestType>("quadratic", attnscope::Quadratic{});
}

TEMPLATE_TEST_CASE("divergences agree with 40 digits", "[reference]", float, double, long double) {
    using T = TestType;
    // All of them are computed in double, whatever the scalar of the rows.
    const Exact u = unit_of<double>;
    const std::string_view scalar = name_of_scalar<T>;
    Figure variation(scalar, "total variation", u, 0), forward(scalar, "KL(p|q)", u, 0),
        backward(scalar, "KL(q|p)", u, 0), shannon(scalar, "Jensen-Shannon", u, 0);
    for (const DivergenceCase& c : divergence_cases) {
        const std::string name = std::string(c.name) + ", T=" + attnscope::detail::to_text(c.temperature);
        const auto size = static_cast<std::size_t>(c.size);
        const std::span<const double> logits(&divergence_logits[c.begin], 2 * size);
        const std::vector<T> a = convert<T>(logits.first(size)), b = convert<T>(logits.subspan(size));
        Exact deepest = 0;
        for (const double x : logits)
            for (const double y : logits)
                if (x > -infinity && y > -infinity)
                    deepest = std::max<Exact>(deepest, std::abs(x - y) / c.temperature);
        // A weight has the rounding of its logarithm, an exp and the sums of its row. The terms of keys that are
        // 1/10 apart or more in x lose up to 1/psi(-1/10) = 207 units, which are two roundings, to cancellation.
        const Exact units = 2 * deepest + 2 * 207 + 3 * exp_units + 2 * sum_units(c.size) + 16;
        const auto check = [&](Figure& figure, double found, Exact exact) {
            if (std::isinf(exact)) {
                INFO(name);
                CHECK(found == std::numeric_limits<double>::infinity());
            } else {
                figure.check(name, found, exact, u * units * exact);
            }
        };
        const auto apart = attnscope::row_divergence<T>(RowIn<T>(a), RowIn<T>(b), c.temperature);
        check(variation, apart.total_variation, c.total_variation);
        check(forward, apart.forward, c.forward);
        check(backward, apart.backward, c.backward);
        check(shannon, apart.jensen_shannon, c.jensen_shannon);
        // The other way round.
        const auto back = attnscope::row_divergence<T>(RowIn<T>(b), RowIn<T>(a), c.temperature);
        check(variation, back.total_variation, c.total_variation);
        check(forward, back.forward, c.backward);
        check(backward, back.backward, c.forward);
        check(shannon, back.jensen_shannon, c.jensen_shannon);
    }
}

TEMPLATE_TEST_CASE("planner functions agree with 40 digits", "[reference]", float, double, long double) {
    using T = TestType;
    const std::string_view scalar = name_of_scalar<T>;
    const Exact eps = 2 * unit_of<T>;
    Figure published(scalar, "published weight range", eps, 0), sharp(scalar, "weight range", eps, 0);
    for (const WeightRangeCase& c : weight_range_cases) {
        const std::string name =
            "n=" + std::to_string(c.n) + ", log kappa=" + attnscope::detail::to_text(c.log_kappa);
        const auto wide = attnscope::published_weight_range<T>(c.n, static_cast<T>(c.log_kappa));
        const auto narrow = attnscope::weight_range<T>(c.n, static_cast<T>(c.log_kappa));
        // exp (1 ulp) and at most three operations.
        published.check(name, wide.lower, c.published_lower, 3 * eps * c.published_lower);
        published.check(name, wide.upper, c.published_upper, 3 * eps * c.published_upper);
        sharp.check(name, narrow.lower, c.lower, 4 * eps * c.lower);
        sharp.check(name, narrow.upper, c.upper, 4 * eps * c.upper);
    }

    Figure by_norm(scalar, "entropy floor, norm", eps, 0), by_range(scalar, "entropy floor, range", eps, 0);
    for (const EntropyFloorCase& c : entropy_floor_cases) {
        const std::string name = "n=" + std::to_string(c.n) + ", size " + attnscope::detail::to_text(c.size);
        const T size = static_cast<T>(c.size);
        // The exponent sigma sqrt(n/(n-1)) is rounded three times, halved once by the root; b enters two terms.
        by_norm.check(name, attnscope::entropy_floor_by_norm<T>(c.n, size), c.by_norm,
                      eps * (2 * Exact(1.25) * c.size * std::sqrt(Exact(2)) + 8) * c.by_norm);
        by_range.check(name, attnscope::entropy_floor_by_range<T>(c.n, size), c.by_range, 8 * eps * c.by_range);
    }

    Figure range(scalar, "entropy range by p1", eps, 0);
    for (const EntropyRangeCase& c : entropy_range_cases) {
        const std::string name = "n=" + std::to_string(c.n) + ", rest " + attnscope::detail::to_text(c.rest);
        const T rest = static_cast<T>(c.rest);
        const auto interval = attnscope::entropy_range_by_max_weight<T>(c.n, 1 - rest, rest);
        range.check(name, interval.lower, c.lower, 6 * eps * c.lower);
        range.check(name, interval.upper, c.upper, 6 * eps * c.upper);
    }

    Figure context(scalar, "longest context", eps, 0), highest(scalar, "highest temperature", eps, 0),
        needed(scalar, "needed spread", eps, 0);
    for (const CapacityCase& c : capacity_cases) {
        const std::string name =
            "n=" + std::to_string(c.n) + ", T=" + attnscope::detail::to_text(c.temperature) +
            ", D=" + attnscope::detail::to_text(c.spread) + ", tau=" + attnscope::detail::to_text(c.tau);
        const T temperature = static_cast<T>(c.temperature), spread = static_cast<T>(c.spread);
        const T tau = static_cast<T>(c.tau);
        context.check(name, attnscope::longest_context<T>(spread, temperature, tau), c.context,
                      eps * (c.spread / c.temperature / 2 + 4) * c.context);
        const T highest_found = attnscope::highest_temperature<T>(c.n, spread, tau);
        const T needed_found = attnscope::needed_spread<T>(c.n, temperature, tau);
        if (std::isinf(c.highest_temperature)) {
            INFO(name);
            CHECK(highest_found == c.highest_temperature);
            CHECK(needed_found == T(0));
            continue;
        }
        // Three logarithms (1 ulp each) and two additions, which may cancel, then one operation.
        const Exact odds = c.needed_spread / c.temperature;
        const Exact terms = std::log(Exact(c.n - 1)) - std::log(Exact(c.tau)) - std::log1p(-Exact(c.tau));
        highest.check(name, highest_found, c.highest_temperature,
                      eps * (2 * terms / odds + 1) * c.highest_temperature);
        needed.check(name, needed_found, c.needed_spread, eps * (2 * terms / odds + 1) * c.needed_spread);
    }
}
