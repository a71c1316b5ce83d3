// References in long double for normalisers whose weights solve an equation (alpha-entmax, softmax at a target
// entropy or participation ratio) and for self-adjusted softmax. Equations are solved by sorting or inside a
// bracket, never by the library's way.
#pragma once

#include <support/condition_reference.hpp>

#include <optional>

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
        largest = solver == EntmaxSolver::by_sorting ? sorted() : bracketed();
        theta = theta_of(largest);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (visible[i]) weights[i] = weight(i, largest);
    }

    /// p_i where the largest weight is P, moved by an error of y_i (alpha <= 2) or of b_i (alpha > 2).
    Ref weight(std::size_t i, Ref largest_weight, Ref error = 0) const {
        if (a_ == 0) return std::exp(std::log(largest_weight) - gap[i] + error);
        if (alpha_ > 2) {
            const Ref b = std::pow(largest_weight, a_) - a_ * gap[i] + error;
            return b > 0 ? std::pow(b, 1 / a_) : Ref(0);
        }
        const Ref x = std::expm1(a_ * std::log(largest_weight)) - a_ * (gap[i] - error);
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
    Ref largest = 0, theta = 0;

private:
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
            for (std::size_t i = 0; i < gap.size(); ++i)
                if (visible[i]) sum += weight(i, p);
            return std::log(sum);
        });
    }
};

/// What the law suite asks of alpha-entmax.
///
/// Forward error: z_i - max z is rounded and so is theta (alpha <= 2), or P^a (alpha > 2, where theta would
/// lose the digits of small weights): y_i moves by 4 u (gap_i + theta), b_i by 4 u (a gap_i + P^a). The sum's
/// own error, of its terms and of its additions, moves theta by itself/sum s; the errors of the y_i by their
/// mean over s (alpha <= 2) or at most by the largest of them. Then p_i moves to its value at the moved y_i or
/// b_i, which also holds at the edge of the support, and its power costs (8 + 4 |log p_i|) u. Weights may be
/// divided by their sum, which spreads the errors of all over each.
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
        return weight_bound(row(z), unit_roundoff<T> + unit_roundoff<Ref>, sum_rounding<T>(z.size()));
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
        Ref slopes = 0, mean = 0, lost = sum;
        for (std::size_t i = 0; i < n; ++i) {
            if (!(r.weights[i] > 0)) continue;
            const Ref s = r.slope(r.weights[i]);
            slopes += s;
            mean += s * (4 * u * (r.gap[i] + r.theta) + moved);
            lost += r.weights[i] * (8 + 4 * std::abs(std::log(r.weights[i]))) * u;
        }
        RefRow bound(n, 0);
        if (r.count == 0) return bound;
        // On the support a gap_i is at most P^a.
        const Ref threshold = steep ? 8 * u * top + a * moved + a * lost / slopes : (mean + lost) / slopes;
        Ref all = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (!r.visible[i]) continue;
            const Ref error = threshold + (steep ? 4 * u * (a * r.gap[i] + top) + a * moved
                                                 : 4 * u * (r.gap[i] + r.theta) + moved);
            const Ref p = r.weights[i];
            const Ref power = p > 0 ? p * (8 + 4 * std::abs(std::log(p))) * u : Ref(0);
            bound[i] = std::max(std::abs(r.weight(i, r.largest, error) - p),
                                std::abs(r.weight(i, r.largest, -error) - p)) +
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

} // namespace attnscope_test
