// Expected geometric separability on the spherical model, exactly: needs Boost.Math (target
// attnscope::special).
#pragma once

#include <attnscope/selection/separability_bounds.hpp>
#include <attnscope/selection/sphere_sums.hpp>

#include <boost/math/quadrature/gauss_kronrod.hpp>
#include <boost/math/special_functions/bessel.hpp>
#include <boost/math/special_functions/beta.hpp>

#include <Eigen/Eigenvalues>

#include <functional>
#include <numbers>
#include <numeric>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

struct QuadratureRule {
    std::vector<double> nodes, weights;
};

/// Gauss rule of a three-term recurrence with diagonal a and squared off-diagonal b (b[0] unused), total
/// mass 1.
inline QuadratureRule gauss_rule(std::span<const double> a, std::span<const double> b) {
    const auto n = static_cast<Index>(a.size());
    const Eigen::Map<const Eigen::VectorXd> diagonal(a.data(), n), squares(b.data(), n);
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver;
    solver.computeFromTridiagonal(diagonal, squares.tail(n - 1).cwiseSqrt());
    QuadratureRule rule;
    for (Index i = 0; i < n; ++i) {
        rule.nodes.push_back(solver.eigenvalues()[i]);
        rule.weights.push_back(solver.eigenvectors()(0, i) * solver.eigenvectors()(0, i));
    }
    return rule;
}

/// Gauss-Legendre rule on [0,1].
inline QuadratureRule unit_rule(int order) {
    std::vector<double> a(static_cast<std::size_t>(order), 0), b(static_cast<std::size_t>(order), 0);
    for (int k = 1; k < order; ++k) detail::at(b, k) = double(k) * k / (4.0 * k * k - 1);
    QuadratureRule rule = gauss_rule(a, b);
    for (double& node : rule.nodes) node = (1 + node) / 2;
    return rule;
}

/// E f(t) for t = cos(angle) of two random directions in R^d, angle density proportional to sin^{d-2}, where f changes
/// quickly around one t, the step. Panels end at the step, where nodes are gathered by a cubic substitution, and at three
/// standard deviations of the angle; those that do not touch the step are made once.
class CosineQuadrature {
public:
    CosineQuadrature(Index dimension, int order) : dimension_(dimension), rule_(unit_rule(order)) {
        const double half = static_cast<double>(dimension) / 2, right_angle = std::numbers::pi / 2;
        const double deviation = 1 / std::sqrt(static_cast<double>(dimension));
        norm_ = std::exp(std::lgamma(half) - std::lgamma(half - 0.5)) / std::sqrt(std::numbers::pi);
        const double reach = std::min(right_angle, 9 * deviation), core = std::min(right_angle, 3 * deviation);
        ends_ = {right_angle - reach, right_angle - core, right_angle + core, right_angle + reach};
        for (std::size_t panel = 0; panel < panels_.size(); ++panel)
            for (std::size_t k = 0; k < rule_.nodes.size(); ++k) {
                const double length = ends_[panel + 1] - ends_[panel];
                panels_[panel].push_back(
                    node(ends_[panel] + length * rule_.nodes[k], length * rule_.weights[k]));
            }
    }

    template <class F>
    double expect(double step, F&& f) const {
        const double split = std::acos(std::clamp(step, -1.0, 1.0));
        double sum = 0;
        for (std::size_t panel = 0; panel < panels_.size(); ++panel) {
            if (ends_[panel] < split && split < ends_[panel + 1]) {
                sum += gathered(split, ends_[panel] - split, f) + gathered(split, ends_[panel + 1] - split, f);
                continue;
            }
            for (const Node& at : panels_[panel])
                if (at.weight > 0) sum += at.weight * f(at.cosine);
        }
        return sum;
    }

private:
    struct Node {
        double cosine, weight;
    };
    Node node(double angle, double weight) const {
        return {std::cos(angle), weight * norm_ * to_power(std::sin(angle), dimension_ - 2)};
    }
    /// By squaring: the exponent is the dimension less 2, and a relative error of that many roundings is none here.
    static double to_power(double base, Index exponent) {
        double power = 1;
        for (; exponent > 0; exponent >>= 1, base *= base)
            if (exponent % 2 == 1) power *= base;
        return power;
    }
    /// From the split over a panel of a signed length.
    template <class F>
    double gathered(double split, double length, F&& f) const {
        double sum = 0;
        for (std::size_t k = 0; k < rule_.nodes.size(); ++k) {
            const double u = rule_.nodes[k];
            const Node at = node(split + length * u * u * u, 3 * u * u * std::abs(length) * rule_.weights[k]);
            sum += at.weight * f(at.cosine);
        }
        return sum;
    }

    Index dimension_;
    QuadratureRule rule_;
    double norm_;
    std::array<double, 4> ends_;
    std::array<std::vector<Node>, 3> panels_;
};

/// W = |sum_j p_j x_j|^2 of some keys, x_j independent and uniform on the unit sphere: its mean, and E (W - E W)^m for
/// m = 0, 1, ...
struct SquareLength {
    long double mean = 0;
    std::vector<long double> central;
};

/// Moments of W, which are finite sums, up to an order.
class SquareLengths {
public:
    using Wide = long double;

    SquareLengths(Index dimension, std::size_t top)
        : top_(top), cosine_(top / 2 + 1, 1), binomial_(top + 1, std::vector<Wide>(top + 1, 0)) {
        for (std::size_t j = 1; j < cosine_.size(); ++j) // E t^{2j} = prod (2i-1)/(d+2i-2)
            cosine_[j] = cosine_[j - 1] * static_cast<Wide>(2 * j - 1) /
                         static_cast<Wide>(dimension + static_cast<Index>(2 * j) - 2);
        for (std::size_t n = 0; n <= top; ++n) {
            binomial_[n][0] = 1;
            for (std::size_t k = 1; k <= n; ++k)
                binomial_[n][k] = binomial_[n - 1][k - 1] + (k < n ? binomial_[n - 1][k] : 0);
        }
    }

    /// Of one key of weight sqrt(square).
    SquareLength one(Wide square) const {
        SquareLength w{square, std::vector<Wide>(top_ + 1, 0)};
        w.central[0] = 1;
        return w;
    }

    /// Of two groups of keys together: W = A + B + 2 sqrt(A B) t with a cosine t that is symmetric, so that
    /// E (W - E W)^m = sum_h C(m,2h) 4^h E t^{2h} E A^h B^h (A - E A + B - E B)^{m-2h}.
    SquareLength sum(const SquareLength& a, const SquareLength& b) const {
        const auto mixed_a = mixed(a), mixed_b = mixed(b);
        SquareLength w{a.mean + b.mean, std::vector<Wide>(top_ + 1, 0)};
        for (std::size_t m = 0; m <= top_; ++m) {
            Wide power = 1;
            for (std::size_t h = 0; 2 * h <= m; ++h, power *= 4) {
                const std::size_t rest = m - 2 * h;
                const Wide *const of_a = mixed_a.data() + h * (top_ + 1), *const of_b =
                                                                              mixed_b.data() + h * (top_ + 1);
                Wide inner = 0;
                for (std::size_t j = 0; j <= rest; ++j) inner += binomial_[rest][j] * of_a[j] * of_b[rest - j];
                w.central[m] += binomial_[m][2 * h] * power * cosine_[h] * inner;
            }
        }
        return w;
    }

private:
    /// [h, j]: E A^h (A - E A)^j for 2h + j <= top, top + 1 of them in a row.
    std::vector<Wide> mixed(const SquareLength& a) const {
        std::vector<Wide> moments((top_ / 2 + 1) * (top_ + 1));
        for (std::size_t h = 0; 2 * h <= top_; ++h)
            for (std::size_t j = 0; 2 * h + j <= top_; ++j) {
                Wide sum = 0, power = 1;
                for (std::size_t k = h + 1; k-- > 0; power *= a.mean)
                    sum += binomial_[h][k] * power * a.central[j + k];
                moments[h * (top_ + 1) + j] = sum;
            }
        return moments;
    }

    std::size_t top_;
    std::vector<Wide> cosine_;
    std::vector<std::vector<Wide>> binomial_;
};

/// Gauss rule of at most `order` nodes for a W from its moments up to 2 order: Chebyshev's algorithm, moments to
/// recurrence; stops where rounding has eaten a coefficient.
inline QuadratureRule square_length_rule(const SquareLength& w, int order) {
    using Wide = long double;
    const auto top = static_cast<std::size_t>(2 * order);
    const Wide sigma = std::sqrt(std::max(w.central[2], Wide(0)));
    const double mean = static_cast<double>(w.mean);
    if (!(sigma > 1e-9L * w.mean)) return {{mean}, {1}};
    std::vector<Wide> moment = w.central;
    Wide scale = 1;
    for (std::size_t m = 0; m <= top; ++m, scale *= sigma) moment[m] /= scale;
    std::vector<double> a, b;
    std::vector<Wide> before(top, 0), now(moment.begin(), moment.end() - 1);
    a.push_back(static_cast<double>(moment[1]));
    b.push_back(0);
    Wide a_last = moment[1], b_last = moment[0];
    for (std::size_t k = 1; k < static_cast<std::size_t>(order); ++k) {
        std::vector<Wide> row(top, 0);
        for (std::size_t l = k; l < top - k; ++l)
            row[l] = (l + 1 < now.size() ? now[l + 1] : 0) - a_last * now[l] - (k > 1 ? b_last : 0) * before[l];
        const Wide a_k = row[k + 1] / row[k] - now[k] / now[k - 1], b_k = row[k] / now[k - 1];
        if (!(b_k > 1e-6L) || !std::isfinite(static_cast<double>(a_k)) || k + 1 >= top - k) break;
        a.push_back(static_cast<double>(a_k));
        b.push_back(static_cast<double>(b_k));
        a_last = a_k;
        b_last = b_k;
        before.swap(now);
        now.swap(row);
    }
    QuadratureRule rule = gauss_rule(a, b);
    for (double& node : rule.nodes) node = std::max(0.0, mean + static_cast<double>(sigma) * node);
    return rule;
}

/// For each key of a selection the Gauss rule for the W of all others. O(N) sums of groups: those before and those
/// behind the key.
class LeaveOneOutLengths {
public:
    LeaveOneOutLengths(std::span<const double> p, Index dimension, int order)
        : order_(order), sums_(dimension, static_cast<std::size_t>(2 * order)) {
        const auto one = [&](double weight) {
            const auto length = static_cast<long double>(weight);
            return sums_.one(length * length);
        };
        before_.push_back(sums_.one(0));
        for (const double weight : p) before_.push_back(sums_.sum(before_.back(), one(weight)));
        behind_.push_back(sums_.one(0));
        for (std::size_t i = p.size(); i-- > 0;) behind_.push_back(sums_.sum(behind_.back(), one(p[i])));
    }
    QuadratureRule rule(std::size_t without) const {
        return square_length_rule(sums_.sum(before_[without], behind_[behind_.size() - 2 - without]), order_);
    }

private:
    int order_;
    SquareLengths sums_;
    std::vector<SquareLength> before_, behind_; ///< of the first keys, of the last keys
};

/// G_d on a fine grid with its exact slope: cubic Hermite interpolation, error below 1e-10 for d >= 8; below
/// that the slope is unbounded or steep at the ends and the function itself is asked.
class CosineCdfTable {
public:
    explicit CosineCdfTable(Index dimension) : dimension_(dimension) {
        if (dimension < 8) return;
        const auto density = [&](double t) { // times a constant
            return std::exp((static_cast<double>(dimension) - 3) / 2 * std::log1p(-t * t));
        };
        // Its integral over each cell of [-1, 0], where nothing cancels; the other half by symmetry.
        const QuadratureRule rule = unit_rule(5);
        const double width = 2.0 / cells;
        std::vector<double> value(cells + 1, 0), slope(cells + 1, 0);
        for (std::size_t i = 0; i < cells / 2; ++i) {
            const double start = -1 + width * static_cast<double>(i);
            double mass = 0;
            for (std::size_t k = 0; k < rule.nodes.size(); ++k)
                mass += rule.weights[k] * density(start + width * rule.nodes[k]);
            value[i + 1] = value[i] + mass;
            if (i > 0) slope[i] = slope[cells - i] = density(start);
        }
        slope[cells / 2] = 1;
        const double whole = 2 * value[cells / 2];
        for (std::size_t i = 0; i <= cells / 2; ++i) value[cells - i] = 1 - (value[i] /= whole);
        for (std::size_t i = 0; i <= cells; ++i) {
            table_.push_back(value[i]);
            table_.push_back(slope[i] / whole);
        }
    }
    double operator()(double t) const {
        if (t >= 1) return 1;
        if (t <= -1) return 0;
        return table_.empty() ? sphere_cosine_cdf(dimension_, t) : interpolated(table_.data(), t);
    }
    /// prod_j G_d(a/q_j + b q_j), for descending q; inverse: 1/q_j. Stops where it is below 1e-18, and at the first q up
    /// to `least`, from which on all factors are 1.
    double product(std::span<const double> q, std::span<const double> inverse, double a, double b,
                   double least) const {
        double product = 1;
        std::size_t j = 0;
        if (!table_.empty()) {
            for (; j + at_once <= q.size() && q[j] > least; j += at_once) {
                product *= product_of_packet(q.data() + j, inverse.data() + j, a, b);
                if (product < 1e-18) return product;
            }
        }
        for (; j < q.size() && q[j] > least && product >= 1e-18; ++j)
            product *= (*this)(a * inverse[j] + b * q[j]);
        return product;
    }

private:
    using P = Packet<double>;
    static constexpr int cells = 4096;
    static constexpr std::size_t at_once = static_cast<std::size_t>(P::size);

    double product_of_packet(const double* q, const double* inverse, double a, double b) const {
        const P one = 1.0, two = 2.0, none = 0.0;
        const P t = min(one, max(P(-1.0), madd(P(a), P::load(inverse), P(b) * P::load(q))));
        std::array<double, at_once> at, x_of;
        std::array<std::array<double, at_once>, 4> ends; // value, slope, value, slope
        ((t + one) * P(cells / 2.0)).store(at.data());
        for (std::size_t k = 0; k < at_once; ++k) {
            const int i = std::min(static_cast<int>(at[k]), cells - 1);
            x_of[k] = at[k] - i;
            const double* const cell = table_.data() + std::ptrdiff_t(2) * i;
            for (std::size_t end = 0; end < 4; ++end) ends[end][k] = cell[end];
        }
        const P x = P::load(x_of.data()), y = one - x;
        const P before = madd(x, P::load(ends[1].data()), madd(two, x, one) * P::load(ends[0].data())),
                behind = madd(two, y, one) * P::load(ends[2].data()) - y * P::load(ends[3].data());
        std::array<double, at_once> factors;
        min(one, max(none, madd(y * y, before, x * x * behind))).store(factors.data());
        return std::accumulate(factors.begin(), factors.end(), 1.0, std::multiplies<>());
    }

    static double interpolated(const double* table, double t) {
        const double at = (t + 1) * (cells / 2.0);
        const int i = std::min(static_cast<int>(at), cells - 1);
        const double x = at - i, y = 1 - x;
        const double* const cell = table + std::ptrdiff_t(2) * i;
        const double cubic =
            y * y * ((1 + 2 * x) * cell[0] + x * cell[1]) + x * x * ((1 + 2 * y) * cell[2] - y * cell[3]);
        return std::min(1.0, std::max(0.0, cubic));
    }

    Index dimension_;
    std::vector<double> table_; ///< value and slope at each end of a cell
};

} // namespace detail

/// E N_s/N for r = min over the non-selected (the geometric recall), weights fixed and independent of the
/// vectors, which are i.i.d. uniform on a sphere of R^d; its radius cancels. The rules and the table of G_d
/// are made once for many rows (milliseconds).
/// Formula. Exact up to quadrature: (1/N) sum_{i in I} E_{X,t} prod_{j not in I} G_d((p_i^2+p_j^2+2 p_i X
/// t)/(2 p_j sqrt(X^2+p_i^2+2 p_i X t))), X = |sum_{I\i} p_j x_j|, t the cosine between x_i and that sum.
/// Example:
///     const SeparableFractionModel model(64); // d
///     const double fraction = model.expected(selected, others); // weights, spans or vectors of double
class SeparableFractionModel {
public:
    /// quadrature_order: nodes for t, and for X^2 (at most 12 of them; their rule comes from exact moments).
    /// The error falls quickly with the order; 16 agrees with simulation to its noise (tests).
    /// Throws. `invalid_argument` for d < 2 or order < 1.
    explicit SeparableFractionModel(Index dimension, int quadrature_order = 16)
        : dimension_(checked(dimension, quadrature_order)), order_(quadrature_order),
          cosine_(dimension, quadrature_order), cdf_(dimension) {}

    /// 1 when everything is selected; keys of weight 0 among the others cannot be closer than s itself and
    /// count through |s| alone.
    /// Cost. O(N order^2 (L-N)) interpolations.
    /// Throws. `invalid_argument` for an empty selection or a negative weight.
    double expected(std::span<const double> selected, std::span<const double> others) const {
        detail::require(!selected.empty(), "SeparableFractionModel", "at least one key must be selected",
                        selected.size());
        for (const auto weights : {selected, others})
            for (const double p : weights)
                detail::require(p >= 0, "SeparableFractionModel", "weights must be >= 0", p);
        if (others.empty()) return 1;
        std::vector<double> descending(others.begin(), others.end());
        std::sort(descending.begin(), descending.end(), std::greater<>());
        std::vector<double> inverse(descending);
        for (double& q : inverse) q = 1 / q;
        const detail::LeaveOneOutLengths rest(selected, dimension_, std::min(order_, 12));
        double sum = 0;
        for (std::size_t i = 0; i < selected.size(); ++i) {
            const double p = selected[i];
            const detail::QuadratureRule lengths = rest.rule(i);
            for (std::size_t a = 0; a < lengths.nodes.size(); ++a) {
                const double x = std::sqrt(lengths.nodes[a]);
                // A light key lies near 0, so it is farther from s than i is about when |s| > X: a step at t =
                // -p/(2X).
                const double step = x > 0 ? -p / (2 * x) : -1;
                sum += lengths.weights[a] * cosine_.expect(step, [&](double t) {
                    return nobody_nearer(descending, inverse, p, x, t);
                });
            }
        }
        return sum / static_cast<double>(selected.size());
    }

private:
    static Index checked(Index dimension, int order) {
        detail::require(dimension >= 2, "SeparableFractionModel", "dimension must be >= 2", dimension);
        detail::require(order >= 1, "SeparableFractionModel", "quadrature order must be >= 1", order);
        return dimension;
    }

    /// Probability that no other key is nearer to s than a key of weight p at cosine t to the rest, of length
    /// x, whose distance from s is then x. others: weights, descending.
    double nobody_nearer(std::span<const double> others, std::span<const double> inverse, double p, double x,
                         double t) const {
        const double along = p * p + 2 * p * x * t;
        const double s = std::sqrt(std::max(0.0, x * x + along));
        if (others.back() <= x - s) return 0; // nearer, whatever its direction
        if (s == 0) return 1;
        return cdf_.product(others, inverse, along / (2 * s), 1 / (2 * s),
                            s - x); // up to s - x: farther, likewise
    }

    Index dimension_;
    int order_;
    detail::CosineQuadrature cosine_;
    detail::CosineCdfTable cdf_;
};

/// `SeparableFractionModel` for one row: cost and errors of its constructor and of `expected`.
inline double expected_separable_fraction(std::span<const double> selected, std::span<const double> others,
                                          Index dimension, int quadrature_order = 16) {
    return SeparableFractionModel(dimension, quadrature_order).expected(selected, others);
}

} // namespace v0_2
} // namespace attnscope
