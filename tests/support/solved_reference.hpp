// References in long double for normalisers whose weights solve an equation (alpha-entmax, softmax at a target
// entropy or participation ratio) and for self-adjusted softmax. Equations are solved by sorting or inside a
// bracket, never by the library's way.
#pragma once

#include <support/condition_reference.hpp>

#include <optional>
#include <utility>

namespace attnscope_test {

/// Where an increasing f crosses 0 within [low, high]: secants of the Illinois method, bisected when they fail
/// to halve the bracket.
template <class F>
Ref root_of_increasing(Ref low, Ref high, F&& f) {
    Ref f_low = f(low), f_high = f(high);
    if (f_low >= 0) return low;
    if (f_high <= 0) return high;
    int side = 0;
    for (int step = 0; step < 300 && high - low > unit_roundoff<Ref> * (std::abs(low) + std::abs(high));
         ++step) {
        Ref x = high - f_high * ((high - low) / (f_high - f_low));
        if (step % 4 == 3 || !(x > low && x < high)) x = low + (high - low) / 2;
        const Ref value = f(x);
        if (value == 0) return x;
        if (value < 0) {
            low = x;
            f_low = value;
            if (side < 0) f_high /= 2;
            side = -1;
        } else {
            high = x;
            f_high = value;
            if (side > 0) f_low /= 2;
            side = 1;
        }
    }
    return low + (high - low) / 2;
}

/// max z - z_i, 0 at masked keys.
inline RefRow gaps_of(const RefRow& z) {
    Ref top = masked_ref;
    for (const Ref x : z) top = std::max(top, x);
    RefRow gap(z.size(), 0);
    for (std::size_t i = 0; i < z.size(); ++i)
        if (z[i] != masked_ref) gap[i] = top - z[i];
    return gap;
}

enum class EntmaxSolver { by_sorting, in_bracket };

/// alpha-entmax of one row. With a = alpha - 1, y_i = z_i - max z - theta and b_i = 1 + a y_i: p_i = b_i^{1/a},
/// s_i = p_i^{2-alpha}, q_i = dp_i/d alpha at fixed theta. Unknown is the largest weight, P: 1 - a theta = P^a,
/// so b_i = P^a - a gap_i, which has all its digits on rows of ties.
class EntmaxRow {
public:
    EntmaxRow(Ref alpha, const RefRow& z, EntmaxSolver solver) : alpha_(alpha), a_(alpha - 1), gap(gaps_of(z)) {
        visible.resize(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) count += visible[i] = z[i] != masked_ref;
        weights.assign(z.size(), 0);
        if (count == 0) return;
        if (alpha_ > 2) {
            from_the_edge();
        } else {
            largest = solver == EntmaxSolver::by_sorting ? sorted() : bracketed();
            level = level_of(largest);
            for (std::size_t i = 0; i < z.size(); ++i)
                if (visible[i]) weights[i] = weight(i, level);
        }
        theta = theta_of(largest);
        level = level_of(largest);
    }

    /// For alpha > 2: sum of the weights of the keys nearer to the largest than `edge`, if a key there has
    /// weight s.
    Ref sum_above(Ref edge, Ref s) const {
        Ref sum = 0;
        for (std::size_t i = 0; i < gap.size(); ++i)
            if (visible[i] && gap[i] < edge) sum += from_edge(gap[i], edge, s);
        return sum;
    }
    Ref from_edge(Ref own, Ref edge, Ref s) const {
        return std::pow(std::pow(s, a_) + a_ * (edge - own), 1 / a_);
    }

    /// log P, P^a - 1 or P^a (alpha = 1, up to 2, above), on which p_i depends.
    Ref level_of(Ref largest_weight) const {
        if (a_ == 0) return std::log(largest_weight);
        return alpha_ > 2 ? std::pow(largest_weight, a_) : std::expm1(a_ * std::log(largest_weight));
    }
    /// p_i at a level, moved by an error of y_i (alpha <= 2) or of b_i (alpha > 2).
    Ref weight(std::size_t i, Ref at, Ref error = 0) const {
        if (a_ == 0) return std::exp(at - gap[i] + error);
        if (alpha_ > 2) {
            const Ref b = at - a_ * gap[i] + error;
            return b > 0 ? std::pow(b, 1 / a_) : Ref(0);
        }
        const Ref x = at - a_ * (gap[i] - error);
        return x > -1 ? std::exp(std::log1p(x) / a_) : Ref(0);
    }
    Ref theta_of(Ref largest_weight) const {
        return a_ == 0 ? -std::log(largest_weight) : -std::expm1(a_ * std::log(largest_weight)) / a_;
    }
    Ref slope(Ref p) const { return p > 0 ? std::pow(p, 2 - alpha_) : Ref(0); }
    /// q(p): with x = -a log p, q = -p (e^x - 1 - x)/a^2, and -p (log p)^2/2 at alpha = 1.
    Ref parameter_slope(Ref p) const {
        if (!(p > 0)) return 0;
        const Ref log = std::log(p), x = -a_ * log;
        if (x > 0.5L) return -p * (std::expm1(x) - x) / (a_ * a_);
        Ref sum = 0, term = log * log / 2;
        for (int k = 3; k < 40; ++k) {
            sum += term;
            term *= x / Ref(k);
        }
        return -p * sum;
    }
    Ref alpha() const { return alpha_; }

private:
    Ref alpha_, a_;

public:
    RefRow gap, weights;
    std::vector<bool> visible;
    std::size_t count = 0;
    Ref largest = 0, theta = 0, level = 0;
    Ref edge_gap = 0, edge_weight = 0; ///< alpha > 2: of the last key that has weight
    std::size_t ties = 0;              ///< keys at the edge

private:
    /// alpha > 2: the last of the sorted keys beside which the others do not have all the mass, then its weight
    /// by bisection: sum_i (s^a + a (z_i - z_edge))^{1/a} grows with s at least as fast as s.
    void from_the_edge() {
        RefRow x;
        for (std::size_t i = 0; i < gap.size(); ++i)
            if (visible[i]) x.push_back(gap[i]);
        std::sort(x.begin(), x.end());
        x.erase(std::unique(x.begin(), x.end()), x.end());
        std::size_t low = 0, high = x.size(); // x[low] has weight, x[high] has none
        while (high - low > 1) {
            const std::size_t middle = (low + high) / 2;
            (sum_above(x[middle], 0) < 1 ? low : high) = middle;
        }
        edge_gap = x[low];
        for (std::size_t i = 0; i < gap.size(); ++i) ties += visible[i] && gap[i] == edge_gap;
        Ref least = 0, most = 1;
        for (int i = 0; i < 80; ++i) {
            const Ref s = (least + most) / 2;
            (sum_above(edge_gap, s) + static_cast<Ref>(ties) * s < 1 ? least : most) = s;
        }
        edge_weight = most;
        for (std::size_t i = 0; i < gap.size(); ++i)
            if (visible[i] && gap[i] <= edge_gap)
                weights[i] = gap[i] == edge_gap ? edge_weight : from_edge(gap[i], edge_gap, edge_weight);
        largest = *std::max_element(weights.begin(), weights.end());
    }
    /// The closed forms of sparsemax and 1.5-entmax: the support is the longest run of the largest logits whose
    /// own threshold leaves its last key inside.
    Ref sorted() const {
        RefRow x;
        for (std::size_t i = 0; i < gap.size(); ++i)
            if (visible[i]) x.push_back(a_ * gap[i]);
        std::sort(x.begin(), x.end());
        Ref found = 0, sum = 0, mean = 0, scatter = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const Ref k = static_cast<Ref>(i + 1);
            Ref threshold = 0;
            if (a_ == 1) { // sum (t - x) = 1
                sum += x[i];
                threshold = (1 + sum) / k;
            } else { // sum (t - x)^2 = 1
                const Ref off = x[i] - mean;
                mean += off / k;
                scatter += off * (x[i] - mean);
                threshold = mean + std::sqrt(std::max(Ref(0), 1 - scatter) / k);
            }
            if (threshold <= x[i]) break;
            found = threshold;
        }
        return a_ == 1 ? found : found * found;
    }
    Ref bracketed() const {
        return root_of_increasing(1 / static_cast<Ref>(count), 1, [&](Ref p) {
            Ref sum = 0;
            const Ref at = level_of(p);
            for (std::size_t i = 0; i < gap.size(); ++i)
                if (visible[i]) sum += weight(i, at);
            return std::log(sum);
        });
    }
};

/// What the law suite asks of alpha-entmax.
///
/// Forward error: z_i - max z and theta are rounded, so y_i moves by 4 u (gap_i + theta); if all keys of the
/// support tie, theta follows from their number and 1 - a theta = P^a is known to 4 u of itself. The sum's own
/// error, of its terms and of its additions, moves theta by itself/sum s; the errors of the y_i by their mean
/// over s (alpha <= 2) or at most by the largest of them on the support, 4 u/a. Then p_i moves to its value at
/// the moved y_i, which also holds at the edge of the support, and its power costs (8 + 4 |log p_i|) u. Weights
/// may be divided by their sum, which spreads the errors of all over each.
class EntmaxReference {
public:
    explicit EntmaxReference(double alpha)
        : EntmaxReference(alpha,
                          alpha == 1.5 || alpha == 2 ? EntmaxSolver::by_sorting : EntmaxSolver::in_bracket) {}
    EntmaxReference(double alpha, EntmaxSolver solver) : alpha_(alpha), solver_(solver) {}

    const EntmaxRow& row(const RefRow& z) const {
        if (!last_ || z != last_z_) {
            last_.emplace(alpha_, z, solver_);
            last_z_ = z;
        }
        return *last_;
    }
    RefRow weights(const RefRow& z) const { return row(z).weights; }
    bool expects_zeros() const { return alpha_ > 1 + 1e-6; }
    bool shares_infinity() const { return true; }

    template <class T>
    RefRow weight_bound(const RefRow& z) const {
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        return alpha_ > 2 ? edge_bound(row(z), u, sum_rounding<T>(z.size()))
                          : weight_bound(row(z), u, sum_rounding<T>(z.size()));
    }
    /// For alpha > 2, p_i = (s^a + a d_i)^{1/a} with the distance d_i to the key at the edge, whose weight is
    /// s: a power costs (8 + 4 |log p|) u, d_i u, and what the sum loses by that is put right by s, whose slope
    /// is (s/p)^{a-1}
    /// <= 1. A key that just misses the support may be taken in for as much.
    static RefRow edge_bound(const EntmaxRow& r, Ref u, Ref sum) {
        const std::size_t n = r.gap.size();
        RefRow bound(n, 0);
        if (r.count == 0) return bound;
        Ref lost = sum;
        for (std::size_t i = 0; i < n; ++i)
            if (const Ref p = r.weights[i]; p > 0)
                lost += bound[i] = p * (8 + 4 * std::abs(std::log(p)) + 4 / (r.alpha() - 1)) * u;
        RefRow outside; // gaps of the keys without weight
        for (std::size_t i = 0; i < n; ++i)
            if (r.visible[i] && !(r.weights[i] > 0)) outside.push_back(r.gap[i]);
        std::sort(outside.begin(), outside.end());
        Ref near = r.edge_gap;
        for (std::size_t i = 0; i < outside.size() && r.sum_above(outside[i], 0) < 1 + 2 * lost; ++i)
            near = outside[i];
        for (std::size_t i = 0; i < n; ++i) {
            if (!r.visible[i]) continue;
            if (const Ref p = r.weights[i]; p > 0)
                bound[i] += 2 * lost * std::pow(r.edge_weight / p, r.alpha() - 2);
            else if (r.gap[i] <= near)
                bound[i] += 2 * lost;
        }
        return bound;
    }
    template <class T>
    RefRow weight_error(const RefRow& z) const {
        RefRow bound = weight_bound<T>(z);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (bound[i] > 0) bound[i] /= row(z).weights[i];
        return bound;
    }

    /// J v = s (v - m), m = <s, v>/sum s, with s from weights that have the errors above; infinite where some s
    /// is not known to a quarter (for alpha >= 2, a key at the edge of the support).
    template <class T>
    RefRow jvp_error(const RefRow& z, const RefRow& v) const {
        const Derivative d = derivative<T>(row(z));
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        Ref mean = 0, size = 0, fastest = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (!d.near[i]) continue;
            mean += d.s[i] * v[i] / d.sum;
            size += d.s[i] * std::abs(v[i]) / d.sum;
            fastest = std::max(fastest, std::abs(v[i]));
        }
        Ref mean_error = size * (sum_rounding<T>(z.size()) + 8 * u);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (d.near[i]) mean_error += 2 * d.error[i] * std::abs(v[i] - mean) / d.sum;
        RefRow result(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (!d.near[i]) continue;
            result[i] = 2 * d.error[i] * (std::abs(v[i] - mean) + mean_error) +
                        d.s[i] * (mean_error + 4 * u * (std::abs(v[i]) + size)) +
                        4 * Ref(std::numeric_limits<T>::min()) * (1 + fastest);
            if (!d.known) result[i] = std::numeric_limits<Ref>::infinity();
        }
        return result;
    }
    template <class T>
    RefRow vjp_error(const RefRow& z, const RefRow& w) const {
        return jvp_error<T>(z, w);
    }

    RefMatrix jacobian(const RefRow& z) const {
        const EntmaxRow& r = row(z);
        RefRow s(z.size());
        Ref sum = 0;
        for (std::size_t i = 0; i < z.size(); ++i) sum += s[i] = r.slope(r.weights[i]);
        RefMatrix dense{z.size(), RefRow(z.size() * z.size(), 0)};
        for (std::size_t i = 0; i < z.size(); ++i) {
            for (std::size_t j = 0; j < z.size(); ++j) {
                if (s[i] == 0 || s[j] == 0) continue;
                Ref others = 0; // sum s - s_i, not subtracted
                for (std::size_t k = 0; k < z.size() && i == j; ++k) others += k == i ? Ref(0) : s[k];
                dense(i, j) = i == j ? s[i] * (others / sum) : -s[i] * (s[j] / sum);
            }
        }
        return dense;
    }

    /// dp/d alpha = q - s sum q/sum s.
    RefRow parameter_derivative(const RefRow& z) const {
        const EntmaxRow& r = row(z);
        Ref q = 0, s = 0;
        for (const Ref p : r.weights) {
            q += r.parameter_slope(p);
            s += r.slope(p);
        }
        RefRow result(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i)
            result[i] = r.parameter_slope(r.weights[i]) - r.slope(r.weights[i]) * (q / s);
        return result;
    }
    template <class T>
    RefRow parameter_error(const RefRow& z) const {
        const EntmaxRow& r = row(z);
        const Derivative d = derivative<T>(r);
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>, round = sum_rounding<T>(z.size());
        RefRow q(z.size(), 0), q_error(z.size(), 0);
        Ref sum = 0, sum_error = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (!d.near[i]) continue;
            const Ref p = r.weights[i], up = r.parameter_slope(p + d.weight[i]),
                      down = r.parameter_slope(std::max(Ref(0), p - d.weight[i]));
            q[i] = r.parameter_slope(p);
            // log p, its multiple x and e^x - 1 - x.
            const Ref units = 16 + 8 * (p > 0 ? std::abs(std::log(p)) : Ref(0));
            q_error[i] = 2 * std::max(std::abs(up - q[i]), std::abs(down - q[i])) + units * u * std::abs(q[i]);
            sum += q[i];
            sum_error += q_error[i] + round * std::abs(q[i]);
        }
        Ref s_error = round;
        for (std::size_t i = 0; i < z.size(); ++i) s_error += 2 * d.error[i] / d.sum;
        RefRow result(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (d.near[i])
                result[i] = !d.known ? std::numeric_limits<Ref>::infinity()
                                     : q_error[i] + 2 * d.error[i] * std::abs(sum) / d.sum +
                                           d.s[i] * (sum_error + std::abs(sum) * (s_error + 8 * u)) / d.sum +
                                           4 * Ref(std::numeric_limits<T>::min());
        return result;
    }

    Ref step(const RefRow& z, const RefRow& v) const {
        Ref fastest = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) fastest = std::max(fastest, std::abs(v[i]));
        // For alpha > 2 small weights bend within their own b: 1e-6 of the smallest, but not below 1e-9 P^a.
        const Ref top = alpha_ > 2 ? std::pow(row(z).largest, alpha_ - 1) : Ref(1);
        return Ref(1e-6) / (1 + fastest) * std::max(std::min(Ref(1), nearest(row(z))), top / 1000);
    }
    /// Errors of the two weights, and of z + h v. Infinite where a key is too near the edge for differences.
    RefRow difference_rounding(const RefRow& z, const RefRow& v) const {
        if (nearest(row(z)) < Ref(1e-5) * std::pow(row(z).largest, alpha_ - 1))
            return RefRow(z.size(), std::numeric_limits<Ref>::infinity());
        Ref moved = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (row(z).weights[i] > 0) moved = std::max(moved, 2 * std::abs(z[i]) * unit_roundoff<Ref>);
        const Ref h = step(z, v);
        RefRow result = weight_bound(row(z), 2 * unit_roundoff<Ref>, sum_rounding<Ref>(z.size()), moved);
        for (Ref& x : result) x *= 2 / h;
        return result;
    }

    /// Errors of the weights in arithmetic of unit roundoff u whose sums lose `sum`, if each logit has an error
    /// `moved` of its own.
    static RefRow weight_bound(const EntmaxRow& r, Ref u, Ref sum, Ref moved = 0) {
        const Ref a = r.alpha() - 1, top = std::pow(r.largest, a);
        const bool steep = r.alpha() > 2;
        const std::size_t n = r.gap.size();
        Ref slopes = 0, mean = 0, lost = sum, spread = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (!(r.weights[i] > 0)) continue;
            const Ref s = r.slope(r.weights[i]);
            slopes += s;
            mean += s * (4 * u * (r.gap[i] + r.theta) + moved);
            spread = std::max(spread, r.gap[i]);
            lost += r.weights[i] * (8 + 4 * std::abs(std::log(r.weights[i]))) * u;
        }
        RefRow bound(n, 0);
        if (r.count == 0) return bound;
        const Ref known = spread == 0 ? top : 1 - top; // P^a or a theta
        const Ref threshold = steep ? 4 * u * (spread == 0 ? top : Ref(1)) + a * moved + a * lost / slopes
                                    : (mean + lost) / slopes;
        Ref all = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (!r.visible[i]) continue;
            const Ref error = threshold + (steep ? 4 * u * (a * r.gap[i] + known) + a * moved
                                                 : 4 * u * (r.gap[i] + r.theta) + moved);
            const Ref p = r.weights[i];
            const Ref power = p > 0 ? p * (8 + 4 * std::abs(std::log(p))) * u : Ref(0);
            bound[i] = std::max(std::abs(r.weight(i, r.level, error) - p),
                                std::abs(r.weight(i, r.level, -error) - p)) +
                       power;
            all += bound[i];
        }
        for (std::size_t i = 0; i < n; ++i) bound[i] += r.weights[i] * all;
        return bound;
    }
    template <class T>
    static Ref sum_rounding(std::size_t n) {
        return plain_sum_error<T>(n) + Ref(n) * unit_roundoff<Ref>;
    }

private:
    /// The smallest |b_i|, for alpha > 2.
    static Ref nearest(const EntmaxRow& r) {
        Ref smallest = std::numeric_limits<Ref>::infinity();
        if (r.alpha() <= 2) return smallest;
        const Ref a = r.alpha() - 1, top = std::pow(r.largest, a);
        for (std::size_t i = 0; i < r.gap.size(); ++i)
            if (r.visible[i]) smallest = std::min(smallest, std::abs(top - a * r.gap[i]));
        return smallest;
    }

    struct Derivative {
        RefRow s, error, weight; ///< s, its absolute error, that of the weights
        std::vector<bool> near;  ///< on the support or possibly there
        Ref sum = 0;
        bool known = true;
    };
    template <class T>
    Derivative derivative(const EntmaxRow& r) const {
        const std::size_t n = r.gap.size();
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        Derivative d{RefRow(n, 0), RefRow(n, 0), weight_bound(r, u, sum_rounding<T>(n)),
                     std::vector<bool>(n, false)};
        for (std::size_t i = 0; i < n; ++i) {
            const Ref p = r.weights[i], error = d.weight[i];
            if (p == 0 && error == 0) continue;
            d.weight[i] += 2 * Ref(std::numeric_limits<T>::min());
            d.near[i] = true;
            d.sum += d.s[i] = r.slope(p);
            const Ref up = r.slope(p + d.weight[i]), down = r.slope(std::max(Ref(0), p - d.weight[i]));
            // s is a power of p, by its logarithm.
            const Ref power = p > 0 ? 4 + 4 * std::abs((2 - r.alpha()) * std::log(p)) : Ref(0);
            d.error[i] = std::max(std::abs(up - d.s[i]), std::abs(down - d.s[i])) + power * u * d.s[i];
            if (r.alpha() >= 2 && (d.weight[i] >= p || d.error[i] > d.s[i] / 4)) d.known = false;
        }
        return d;
    }

    double alpha_;
    EntmaxSolver solver_;
    mutable RefRow last_z_;
    mutable std::optional<EntmaxRow> last_;
};

/// A formula that has `smooth(z)`, false where p has no derivative: there differences say nothing. What
/// rounding leaves in them is that of the weights and, through J, of z + h v.
template <class Formula>
class SmoothReference : public ConditionReference<Formula> {
public:
    explicit SmoothReference(Formula formula, bool shares_infinity = true)
        : ConditionReference<Formula>(formula, shares_infinity), formula_(std::move(formula)) {}

    RefRow difference_rounding(const RefRow& z, const RefRow& v) const {
        if (!formula_.smooth(z)) return RefRow(z.size(), std::numeric_limits<Ref>::infinity());
        const FormulaRow row = formula_(z);
        const RefRow error = this->template weight_error<Ref>(z);
        const Ref u = unit_roundoff<Ref>, h = this->step(z, v);
        RefRow result(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref)
                result[i] = std::abs(row.weights[i]) * error[i] + row.diagonal_bound(i) * std::abs(z[i]) * u;
        for (const FormulaRow::Term& term : row.terms) {
            Ref size = 0;
            for (std::size_t j = 0; j < z.size(); ++j)
                if (z[j] != masked_ref) size += term.b_size[j] * std::abs(z[j]) * u;
            for (std::size_t i = 0; i < z.size(); ++i) result[i] += term.a_size[i] * size;
        }
        for (Ref& x : result) x *= 4 / h;
        return result;
    }
    const Formula& formula() const { return formula_; }

private:
    Formula formula_;
};

/// softmax(beta z) whose entropy is `target` nats, or whose participation ratio 1/sum p^2 is `target` keys.
/// a = p (z - E_p z). Entropy: J = beta (A - a a^T/V), V = Var_p z, dp/d nats = -a/(beta V). Participation:
/// b = p (p - S2), c = <b, z>: J = beta (A - a b^T/c), dp/d keys = -a S2^2/(2 c). A = diag p - p p^T.
struct TargetFormula {
    enum Kind { entropy, participation };
    Kind kind;
    Ref target;
    TargetFormula(Kind which_figure, Ref value) : kind(which_figure), target(value) {}

    /// Sums over the keys but one of the largest, so that both figures keep their digits near one-hot rows.
    struct Sums {
        Ref r = 0, t = 0, q = 0;
        Sums(const RefRow& z, const RefRow& gap, Ref beta) {
            bool first = true;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (z[i] == masked_ref || (gap[i] == 0 && std::exchange(first, false))) continue;
                const Ref u = beta * gap[i], e = std::exp(-u);
                r += e;
                t += u * e;
                q += e * e;
            }
        }
        Ref entropy() const { return std::log1p(r) + t / (1 + r); }
        Ref log_participation() const { return 2 * std::log1p(r) - std::log1p(q); }
    };
    Ref level() const { return kind == entropy ? target : std::log(target); }

    enum class Case { equal, top, between };
    Case which(const RefRow& z, const RefRow& gap) const {
        Ref visible = 0, ties = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (z[i] == masked_ref) continue;
            visible += 1;
            if (gap[i] == 0) ties += 1;
        }
        if (kind == entropy ? target >= std::log(visible) : target >= visible) return Case::equal;
        return (kind == entropy ? target <= std::log(ties) : target <= ties) ? Case::top : Case::between;
    }
    /// Where the target is met; 0 for equal weights, infinite for the largest keys alone.
    Ref inverse_temperature(const RefRow& z) const {
        if (z == last_z_) return last_;
        const RefRow gap = gaps_of(z);
        const Case found = which(z, gap);
        last_z_ = z;
        if (found == Case::equal) return last_ = 0;
        if (found == Case::top) return last_ = std::numeric_limits<Ref>::infinity();
        const auto excess = [&](Ref beta) {
            const Sums sums(z, gap, beta);
            return level() - (kind == entropy ? sums.entropy() : sums.log_participation());
        };
        Ref low = 1 / *std::max_element(gap.begin(), gap.end());
        while (excess(low) > 0) low /= 2;
        Ref high = 2 * low;
        while (excess(high) < 0) low = high, high *= 2;
        return last_ = root_of_increasing(low, high, excess);
    }

    /// p is continuous but where ties hold all the mass, and smooth but where every weight becomes equal.
    bool smooth(const RefRow& z) const {
        const RefRow gap = gaps_of(z);
        if (which(z, gap) != Case::top) return true;
        return std::count_if(z.begin(), z.end(), [&](Ref x) { return x != masked_ref && x == z[top(z)]; }) == 1;
    }
    static std::size_t top(const RefRow& z) {
        return static_cast<std::size_t>(std::max_element(z.begin(), z.end()) - z.begin());
    }

    FormulaRow operator()(const RefRow& z) const { return evaluate(z, nullptr); }
    /// dp/d target; its error in units of u; what an absolute error of a weight does to it.
    struct TargetDerivative {
        RefRow value, units, per_weight;
    };
    TargetDerivative parameter_derivative(const RefRow& z) const {
        const RefRow zero(z.size(), 0);
        TargetDerivative derivative{zero, zero, zero};
        evaluate(z, &derivative);
        return derivative;
    }

private:
    FormulaRow evaluate(const RefRow& z, TargetDerivative* derivative) const {
        const std::size_t n = z.size();
        const RefRow gap = gaps_of(z);
        if (visible_keys(z) == 0) return softmax_row(z, 1);
        const Ref beta = inverse_temperature(z);
        if (beta == 0) return softmax_row(z, 0);
        if (std::isinf(beta)) {
            RefRow ties = z;
            Ref second = std::numeric_limits<Ref>::infinity();
            for (std::size_t i = 0; i < n; ++i) {
                if (!(gap[i] > 0)) continue;
                ties[i] = masked_ref;
                second = std::min(second, gap[i]);
            }
            FormulaRow row = softmax_row(ties, 0);
            row.slope.assign(n, 1 / second); // p jumps where the second key passes the first
            return row;
        }
        FormulaRow row = softmax_row(z, beta);
        const RefRow& p = row.weights;
        const Sums sums(z, gap, beta);
        Ref mean_gap = 0, s2 = 0, v = 0, c = 0;
        for (std::size_t i = 0; i < n; ++i) mean_gap += p[i] * gap[i], s2 += p[i] * p[i];
        RefRow d(n, 0), size(n, 0); // z - E z, and what is subtracted
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            d[i] = mean_gap - gap[i];
            size[i] = mean_gap + gap[i];
            v += p[i] * d[i] * d[i];
            c += p[i] * p[i] * d[i];
        }

        // Each exponent errs by up to 8 u of itself (softmax_row), which moves the entropy by p |log p + H| and
        // log S2 by 2 p |p/S2 - 1|. Sums of n terms of one sign cost (72 + n/64) u; H adds such sums only,
        // log S2 is the difference of two.
        const Ref plain = 72 + static_cast<Ref>(n) / 64, h = sums.entropy();
        Ref level_units =
            kind == entropy ? plain * h : plain * (2 * sums.r / (1 + sums.r) + sums.q / (1 + sums.q));
        for (std::size_t i = 0; i < n; ++i) {
            if (!(p[i] > 0)) continue;
            const Ref moves = kind == entropy ? std::abs(std::log(p[i]) + h) : 2 * std::abs(p[i] / s2 - 1);
            level_units += p[i] * moves * 8 * beta * gap[i];
        }
        level_units += 4 * level();
        const Ref slope = kind == entropy ? beta * v : 2 * c / s2; // of the level in beta
        const Ref beta_units = level_units / slope;

        Ref gap_units = 0; // of the mean gap, as far as the weights' own errors differ
        for (std::size_t i = 0; i < n; ++i)
            gap_units += p[i] * gap[i] * (row.weight_units[i] + beta_units * size[i]);
        gap_units = mean_gap > 0 ? gap_units / mean_gap : 0;
        Ref spread_units = 0, s2_units = 0; // of V or c, and of S2
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            row.weight_units[i] += beta_units * std::abs(d[i]);
            const Ref units = row.weight_units[i] + 4;
            s2_units += 2 * p[i] * p[i] * units / s2;
            spread_units += kind == entropy
                                ? p[i] * (d[i] * d[i] * units + 2 * std::abs(d[i]) * size[i] * (4 + gap_units))
                                : p[i] * ((p[i] + s2) * size[i] * (units + 4 + gap_units));
        }
        spread_units = spread_units / (kind == entropy ? v : c) + plain;

        Ref coupling = 0;
        FormulaRow::Term term{RefRow(n, 0), RefRow(n, 0), RefRow(n, 0), RefRow(n, 0)};
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            row.derivative_units[i] = row.weight_units[i] + gap_units + beta_units / beta + s2_units + 24;
            term.a[i] = -p[i] * d[i];
            term.a_size[i] = p[i] * size[i];
            const Ref scale = kind == entropy ? beta / v : beta / c;
            term.b[i] = scale * p[i] * (kind == entropy ? d[i] : p[i] - s2);
            // The scale's own error, in units of the key's factor, which has at least 16.
            term.b_size[i] = scale * p[i] * (kind == entropy ? size[i] : p[i] + s2) * (1 + spread_units / 16);
            coupling = std::max(coupling, std::abs(term.b[i]));
            row.product = std::max({row.product, coupling, scale * std::abs(term.a[i])});
        }
        for (std::size_t i = 0; i < n; ++i) row.slope[i] += coupling * std::abs(d[i]);
        if (derivative != nullptr) {
            const Ref scale = kind == entropy ? 1 / (beta * v) : s2 * s2 / (2 * c);
            for (std::size_t i = 0; i < n; ++i) {
                derivative->value[i] = term.a[i] * scale;
                derivative->units[i] = scale * (term.a_size[i] * 2 * row.derivative_units[i] +
                                                std::abs(term.a[i]) * (spread_units + 2 * s2_units));
                derivative->per_weight[i] = scale * size[i];
            }
        }
        row.terms.push_back(std::move(term));
        return row;
    }

    mutable RefRow last_z_ = {};
    mutable Ref last_ = 0;
};

/// f softmax(z), f_i = (z_i - lo)/(hi - lo), lo = min(min z, 0), hi = max(max z, 0). lo and hi move with the
/// first key that attains them, if any: dp_i/dz_j = f_i q_i (delta_ij - q_j) + q_i [delta_ij - (1 - f_i) (j is
/// lo) - f_i (j is hi)]/(hi - lo).
struct SelfAdjustedFormula {
    FormulaRow operator()(const RefRow& z) const {
        const std::size_t n = z.size();
        FormulaRow row = softmax_row(z, 1);
        const RefRow q = row.weights;
        const auto [lo, hi, low, high] = range(z);
        const Ref width = hi - lo;
        if (!(width > 0)) return zero(n);
        FormulaRow::Term at_low{RefRow(n, 0), RefRow(n, 0), RefRow(n, 0), RefRow(n, 0)}, at_high = at_low;
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            const Ref f = (z[i] - lo) / width;
            row.weights[i] = f * q[i];
            row.weight_units[i] += 4;
            row.derivative_units[i] += 8;
            row.diagonal[i] = q[i] * (f + 1 / width);
            row.slope[i] = 1 + 1 / width;
            at_low.a[i] = -q[i] * ((hi - z[i]) / width) / width;
            at_low.a_size[i] = q[i] / width; // 1 - f
            at_high.a[i] = -q[i] * f / width;
        }
        at_high.a_size = absolute(at_high.a);
        if (low < n) at_low.b[low] = at_low.b_size[low] = 1;
        if (high < n) at_high.b[high] = at_high.b_size[high] = 1;
        row.terms = {{negated(row.weights), q, row.weights, q}, at_low, at_high};
        if (*std::max_element(row.weights.begin(), row.weights.end()) == 0) return zero(n);
        return row;
    }
    /// The two ends must not change hands within a difference.
    bool smooth(const RefRow& z) const {
        const auto [lo, hi, low, high] = range(z);
        Ref below = 1, above = 1; // distances of the ends to the next candidate
        for (std::size_t i = 0; i <= z.size(); ++i) {
            const Ref x = i < z.size() ? z[i] : 0;
            if (x == masked_ref) continue;
            if (i != low) below = std::min(below, x - lo);
            if (i != high) above = std::min(above, hi - x);
        }
        const Ref margin = 1e-4L * (hi - lo);
        return below > margin && above > margin;
    }

private:
    struct Range {
        Ref lo = 0, hi = 0;
        std::size_t low, high;
    };
    static Range range(const RefRow& z) {
        Range range{0, 0, z.size(), z.size()};
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (z[i] == masked_ref) continue;
            if (z[i] < range.lo) range.lo = z[i], range.low = i;
            if (z[i] > range.hi) range.hi = z[i], range.high = i;
        }
        return range;
    }
    static FormulaRow zero(std::size_t n) {
        return {RefRow(n, 0), RefRow(n, 0), {}, RefRow(n, 0), RefRow(n, 0), RefRow(n, 1)};
    }
};

/// z softmax(z): dp_i/dz_j = q_i delta_ij (1 + z_i) - z_i q_i q_j.
struct PlainSelfAdjustedFormula {
    FormulaRow operator()(const RefRow& z) const {
        const std::size_t n = z.size();
        FormulaRow row = softmax_row(z, 1);
        const RefRow q = row.weights;
        row.diagonal_size.assign(n, 0);
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            row.weights[i] = z[i] * q[i];
            row.weight_units[i] += 4;
            row.derivative_units[i] += 8;
            row.diagonal[i] = q[i] * (1 + z[i]);
            row.diagonal_size[i] = q[i] * (1 + std::abs(z[i]));
            row.slope[i] = 2;
        }
        row.terms = {{negated(row.weights), q, absolute(row.weights), q}};
        return row;
    }
    bool smooth(const RefRow&) const { return true; }
};

} // namespace attnscope_test
