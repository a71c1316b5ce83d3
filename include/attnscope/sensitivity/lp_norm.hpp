// The Jacobian of softmax in any l_q norm: its norm from below by iteration, and its limits as published and sharp.
#pragma once

#include <attnscope/sensitivity/gradient_bounds.hpp>

namespace attnscope {
inline namespace v0_2 {

/// |diag(p) - p p^T|_{q->q} of a row of weights, from below.
/// Formula. |J x|_q/|x|_q for the x of Boyd's power iteration, x <- psi_{q'}(J psi_q(J x)) with psi_q(y) = sign(y)
/// |y|^{q-1} and 1/q + 1/q' = 1, from x = e_1 on, the key of the largest weight; no step makes it smaller. J is
/// symmetric, so that q and q' have the same norm. On random rows four steps find it to a few parts in a thousand.
/// Special rows. 0 where one key has all weight, or none has; NaN for a row with NaN.
/// Source. Boyd, Linear Algebra Appl. 9 (1974).
template <Real A>
class LpNorm {
public:
    /// Cost. O(n steps), no powers but roots and squares for q = 3; memory is kept from row to row.
    /// Throws. `invalid_argument` unless 1 < q < inf and steps >= 1.
    A operator()(RowIn<A> p, double q, int steps = 4) {
        detail::require(q > 1 && std::isfinite(q), "LpNorm", "q must be > 1 and finite", q);
        detail::require(steps >= 1, "LpNorm", "steps must be >= 1", steps);
        const A largest = detail::row_max<A>(p);
        const std::size_t top = detail::first_not_below<A>(p, largest);
        if (top == p.size()) return p.empty() ? A(0) : std::numeric_limits<A>::quiet_NaN();
        if (std::any_of(p.begin(), p.end(), [](A weight) { return weight != weight; }))
            return std::numeric_limits<A>::quiet_NaN();
        const Eigen::Map<const Array> weights(p.data(), std::ssize(p));
        x_.setZero(std::ssize(p));
        x_[static_cast<Index>(top)] = 1;
        y_.resize(std::ssize(p));
        A best = 0;
        for (int step = 0; step < steps; ++step) {
            multiply(weights, top, x_, y_);
            const A length = norm(x_, q), moved = norm(y_, q);
            if (!(length > A(0)) || !(moved > A(0))) break;
            best = std::max(best, moved / length);
            map(y_, q - 1);
            multiply(weights, top, y_, x_);
            map(x_, 1 / (q - 1));
        }
        return best;
    }

private:
    using Array = Eigen::Array<A, Eigen::Dynamic, 1>;

    /// y = J x, from differences to the key of the largest weight, so that nearly one-hot rows keep their digits.
    static void multiply(const Eigen::Map<const Array>& p, std::size_t top, const Array& x, Array& y) {
        y = x - x[static_cast<Index>(top)];
        const A mean = (p * y).sum();
        y = p * (y - mean);
    }
    /// 1/max|x|, 0 where that is no number.
    static A inverse_of_largest(const Array& x) {
        const A inverse = 1 / x.abs().maxCoeff();
        return std::isfinite(inverse) ? inverse : A(0);
    }
    static A norm(const Array& x, double q) {
        const A inverse = inverse_of_largest(x);
        if (inverse == A(0)) return A(0);
        if (q == 3) return std::cbrt((x * inverse).abs().cube().sum()) / inverse;
        const A sum = (x * inverse)
                          .unaryExpr([&](A share) { return std::pow(std::abs(share), static_cast<A>(q)); })
                          .sum();
        return std::pow(sum, static_cast<A>(1 / q)) / inverse;
    }
    /// x <- sign(x) |x|^power, in units of the largest.
    static void map(Array& x, double power) {
        x *= inverse_of_largest(x);
        if (power == 2)
            x *= x.abs();
        else if (power == 0.5) // no 0/0: what is this small stays 0
            x /= x.abs().max(std::numeric_limits<A>::min()).sqrt();
        else
            x = x.unaryExpr([&](A share) {
                return std::copysign(std::pow(std::abs(share), static_cast<A>(power)), share);
            });
    }

    Array x_, y_;
};

/// Upper limit of |J|_{q->q} from the exact norms of the row's Jacobian: they are joined as Riesz and Thorin say.
/// Formula. min{1/(2T), |J|_1^a |J|_2^{1-a}}, a = |1 - 2/q|, |J|_1 = |J|_inf = 2 p1 (1-p1)/T. Exact at q = 1, 2, inf
/// and for two keys.
/// Special rows. NaN where the norms are.
/// Cost. O(1).
/// Throws. `invalid_argument` unless q >= 1.
template <Real A>
A lp_norm_limit(const JacobianNorms<A>& norms, std::type_identity_t<A> temperature, double q) {
    detail::require(q >= 1, "lp_norm_limit", "q must be >= 1", q);
    const A share = static_cast<A>(std::abs(1 - 2 / q)), one = norms.one, two = norms.spectral.value;
    if (!(one == one && two == two)) return std::numeric_limits<A>::quiet_NaN();
    return std::min(gradient_limit(temperature), std::pow(one, share) * std::pow(two, 1 - share));
}

inline constexpr Statement lp_lipschitz_published_statement{
    .id = "lp_lipschitz",
    .form = Form::published,
    .provenance = Provenance::verbatim,
    .text = "|p(z)-p(z')|_q <= |z-z'|_q/2 for every q in [1, inf], T = 1: held against |J|_q as 1/(2T)",
    .conditions = "softmax; q = 3, and so 3/2",
    .source = "arXiv:2510.23012, abstract",
};

/// The l_q norm of a row's Jacobian against the published constant, 1/(2T). The same abstract has the constant of a
/// row strictly below 1/2 for 1 < q < inf: that is false, (1/2, 1/2) has it for every q.
/// Shapes and units. norm: of dp/dz, 1/T included, or a figure not above it; weight_error: relative error of the
/// weights behind it.
/// Cost. O(1).
/// Source. arXiv:2510.23012.
template <Real A>
Bound<A> lp_lipschitz_published(A norm, std::type_identity_t<A> temperature,
                                std::type_identity_t<A> weight_error) {
    return detail::norm_bound(lp_lipschitz_published_statement, gradient_limit(temperature), norm,
                              weight_error);
}

inline constexpr Statement lp_lipschitz_sharp_statement{
    .id = "lp_lipschitz",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "|J|_q <= |J|_1^a |J|_2^{1-a}, a = |1-2/q|, |J|_1 = 2 p1 (1-p1)/T",
    .conditions = "softmax; q = 3, and so 3/2",
    .source = "row form of arXiv:2510.23012",
};

/// The l_q norm of a row's Jacobian against `lp_norm_limit`. Arguments as of the published form; norms: those of the
/// row.
/// Cost. O(1).
/// Throws. `invalid_argument` unless q >= 1.
template <Real A>
Bound<A> lp_lipschitz_sharp(A norm, const JacobianNorms<A>& norms, std::type_identity_t<A> temperature,
                            double q, std::type_identity_t<A> weight_error) {
    const A limit = lp_norm_limit(norms, temperature, q);
    Bound<A> bound = detail::norm_bound(lp_lipschitz_sharp_statement, limit, norm, weight_error);
    if (std::isfinite(limit)) bound.tolerance += detail::norm_error(weight_error) * limit;
    return bound;
}

} // namespace v0_2
} // namespace attnscope
