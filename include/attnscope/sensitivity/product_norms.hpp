// Norms of the Jacobian of any normaliser, from its products with vectors.
#pragma once

#include <attnscope/random.hpp>
#include <attnscope/sensitivity/softmax_norms.hpp>

#include <array>
#include <numeric>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

/// Eigenvector of the largest eigenvalue of a symmetric 3 x 3 matrix, by Jacobi's rotations.
template <class A>
std::array<A, 3> leading_eigenvector(std::array<std::array<A, 3>, 3> m) {
    std::array<std::array<A, 3>, 3> v{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    for (int sweep = 0; sweep < 30; ++sweep) {
        for (const auto& [i, j] : {std::pair{0u, 1u}, std::pair{0u, 2u}, std::pair{1u, 2u}}) {
            if (m[i][j] == A(0)) continue;
            const A ratio = (m[j][j] - m[i][i]) / (2 * m[i][j]);
            const A t = std::copysign(1 / (std::abs(ratio) + std::hypot(A(1), ratio)), ratio);
            const A c = 1 / std::hypot(A(1), t), s = c * t;
            for (std::size_t k = 0; k < 3; ++k) {
                const A a = m[k][i], b = m[k][j];
                m[k][i] = c * a - s * b;
                m[k][j] = s * a + c * b;
            }
            for (std::size_t k = 0; k < 3; ++k) {
                const A a = m[i][k], b = m[j][k];
                m[i][k] = c * a - s * b;
                m[j][k] = s * a + c * b;
                const A x = v[k][i], y = v[k][j];
                v[k][i] = c * x - s * y;
                v[k][j] = s * x + c * y;
            }
        }
    }
    std::size_t best = 0;
    for (std::size_t k = 1; k < 3; ++k)
        if (m[k][k] > m[best][best]) best = k;
    return {v[0][best], v[1][best], v[2][best]};
}

/// Largest singular value of J = dp/dz by the locally optimal conjugate gradient method on B = J^T J from
/// `start`: each step takes the best vector in the span of the last one, its residual and the last direction,
/// which converges like Lanczos' method in the memory of a few rows. Stops when the residual |B x - sigma^2
/// x|/sigma^2 allows no more than rounding. `bracket`: what is certain.
template <class N, class A>
class LargestSingularValue {
public:
    LargestSingularValue(const N& normalizer, RowIn<A> z, RowIn<A> p, std::vector<A> start, Interval<A> bracket)
        : normalizer_(normalizer), z_(z), p_(p), scale_(bracket.lower), x_(std::move(start)),
          norm_{bracket.lower, bracket, 0, bracket.lower == bracket.upper} {
        if (!norm_.converged) iterate();
    }
    const SpectralNorm<A>& result() const { return norm_; }

private:
    using Vector = std::vector<A>;
    static constexpr int max_steps = 2000;
    static constexpr A precision = 8 * std::numeric_limits<A>::epsilon();

    static A dot(const Vector& a, const Vector& b) {
        return std::inner_product(a.begin(), a.end(), b.begin(), A(0));
    }
    static void add(Vector& a, A factor, const Vector& b) {
        for (std::size_t i = 0; i < a.size(); ++i) a[i] += factor * b[i];
    }
    /// Makes v orthogonal to the unit vector u; B v and B u follow.
    static void subtract_share(Vector& v, Vector& bv, const Vector& u, const Vector& bu) {
        const A share = dot(v, u);
        add(v, -share, u);
        add(bv, -share, bu);
    }
    static void multiply(Vector& a, A factor) {
        for (A& x : a) x *= factor;
    }
    /// B v in units of scale^2: squares of entries of J may underflow.
    Vector product(const Vector& v) const {
        Vector image(v.size());
        normalizer_.jvp(z_, p_, RowIn<A>(v), RowOut<A>(image));
        for (A& x : image) x /= scale_;
        normalizer_.vjp(z_, p_, RowIn<A>(image), RowOut<A>(image));
        for (A& x : image) x /= scale_;
        return image;
    }

    void iterate() {
        multiply(x_, 1 / std::sqrt(dot(x_, x_)));
        Vector bx = product(x_), direction, b_direction;
        bool fresh = true; // is B x computed, not combined?
        while (norm_.steps < max_steps) {
            ++norm_.steps;
            const A value = dot(x_, bx);
            if (!(value > A(0))) break; // entries that are rounding only
            Vector residual = bx;
            add(residual, -value, x_);
            A size = std::sqrt(dot(residual, residual));
            norm_.residual = size / value;
            norm_.value = std::clamp(scale_ * std::sqrt(value), norm_.bracket.lower, norm_.bracket.upper);
            // The error of sigma^2 is quadratic in the residual.
            if (norm_.residual * norm_.residual <= precision) {
                if (fresh) {
                    norm_.converged = true;
                    break;
                }
                bx = product(x_);
                fresh = true;
                continue;
            }
            multiply(residual, 1 / size);
            add(residual, -dot(residual, x_), x_);
            multiply(residual, 1 / std::sqrt(dot(residual, residual)));
            const Vector b_residual = product(residual);
            std::array<std::array<A, 3>, 3> m{};
            if (!direction.empty()) {
                const A before = std::sqrt(dot(direction, direction));
                for (int twice = 0; twice < 2; ++twice) {
                    subtract_share(direction, b_direction, x_, bx);
                    subtract_share(direction, b_direction, residual, b_residual);
                }
                size = std::sqrt(dot(direction, direction));
                // Of a direction that lies nearly in the span of the others rounding would remain, and less of
                // B times it: then it is left out.
                if (size > A(1e-3) * before) {
                    multiply(direction, 1 / size);
                    multiply(b_direction, 1 / size);
                    m[0][2] = m[2][0] = dot(x_, b_direction);
                    m[1][2] = m[2][1] = dot(residual, b_direction);
                    m[2][2] = dot(direction, b_direction);
                } else {
                    direction.clear();
                }
            }
            m[0][0] = value;
            m[0][1] = m[1][0] = dot(x_, b_residual);
            m[1][1] = dot(residual, b_residual);
            const std::array<A, 3> c = leading_eigenvector(m);
            Vector next = residual, b_next = b_residual;
            multiply(next, c[1]);
            multiply(b_next, c[1]);
            if (!direction.empty()) {
                add(next, c[2], direction);
                add(b_next, c[2], b_direction);
            }
            multiply(x_, c[0]);
            multiply(bx, c[0]);
            add(x_, 1, next);
            add(bx, 1, b_next);
            direction = std::move(next);
            b_direction = std::move(b_next);
            size = 1 / std::sqrt(dot(x_, x_));
            multiply(x_, size);
            multiply(bx, size);
            fresh = norm_.steps % 32 == 0; // what rounding leaves in the combinations does not grow for long
            if (fresh) bx = product(x_);
        }
        // What is certain comes from J x itself, not from combined products.
        Vector image(x_.size());
        normalizer_.jvp(z_, p_, RowIn<A>(x_), RowOut<A>(image));
        for (A& x : image) x /= scale_;
        const A sigma = scale_ * std::sqrt(dot(image, image) / dot(x_, x_));
        if (sigma == sigma) norm_.value = std::clamp(sigma, norm_.bracket.lower, norm_.bracket.upper);
        norm_.bracket.lower = std::max(norm_.bracket.lower, norm_.value);
    }

    const N& normalizer_;
    RowIn<A> z_, p_;
    A scale_;
    Vector x_;
    SpectralNorm<A> norm_;
};

/// A normaliser over T alone, for rows in the accumulator scalar, which are rounded on the way. Allocates.
template <class N, Real T>
class NarrowNormalizer {
public:
    explicit NarrowNormalizer(const N* normalizer) : normalizer_(normalizer) {}
    static constexpr NormalizerTraits traits = N::traits;
    static constexpr std::string_view name() { return "narrow"; }

    template <Real A>
    RowStatus apply(std::span<const A> z, std::span<A> out) const {
        std::vector<T> p(out.size());
        const RowStatus status = normalizer_->apply(RowIn<T>(rounded(z)), RowOut<T>(p));
        std::copy(p.begin(), p.end(), out.begin());
        return status;
    }
    template <Real A>
    void jvp(std::span<const A> z, std::span<const A> p, std::span<const A> v, std::span<A> out) const {
        std::vector<T> moved(out.size());
        normalizer_->jvp(RowIn<T>(rounded(z)), RowIn<T>(rounded(p)), RowIn<T>(rounded(v)), RowOut<T>(moved));
        std::copy(moved.begin(), moved.end(), out.begin());
    }
    template <Real A>
    void vjp(std::span<const A> z, std::span<const A> p, std::span<const A> w, std::span<A> out) const {
        std::vector<T> moved(out.size());
        normalizer_->vjp(RowIn<T>(rounded(z)), RowIn<T>(rounded(p)), RowIn<T>(rounded(w)), RowOut<T>(moved));
        std::copy(moved.begin(), moved.end(), out.begin());
    }

private:
    template <Real A>
    static std::vector<T> rounded(std::span<const A> x) {
        std::vector<T> y(x.size());
        std::transform(x.begin(), x.end(), y.begin(), [](A value) { return static_cast<T>(value); });
        return y;
    }
    const N* normalizer_;
};

} // namespace detail

namespace detail {

/// Is t I - A^T A positive definite? By Cholesky's method; the columns of A of n rows are overwritten.
template <class A>
bool below_in_norm(std::vector<A> gram, std::size_t n) {
    for (std::size_t j = 0; j < n; ++j) {
        A* row = gram.data() + j * n;
        for (std::size_t k = 0; k < j; ++k) {
            const A* other = gram.data() + k * n;
            row[k] = (row[k] - std::inner_product(row, row + k, other, A(0))) / other[k];
        }
        const A pivot = row[j] - std::inner_product(row, row + j, row, A(0));
        if (!(pivot > A(0))) return false;
        row[j] = std::sqrt(pivot);
    }
    return true;
}

/// Closes the bracket of a largest singular value sigma that an iteration found, or says that it did not
/// converge. A second one has at most the square |J|_F^2 - sigma^2; where that is the larger, (1 + c u)^2
/// sigma^2 - J^T J must be positive definite, c u beyond the rounding of its own factorisation. `dense`: the
/// columns of J, or none.
template <class A>
void certify(SpectralNorm<A>& norm, A frobenius, const std::vector<A>& dense, std::size_t n) {
    if (!(norm.value > A(0)) || norm.bracket.lower == norm.bracket.upper) return;
    const A room = 16 * static_cast<A>(n + 16) * std::numeric_limits<A>::epsilon();
    const A limit = std::max(A(1) + room, A(1) + norm.residual * norm.residual);
    const A share = frobenius / norm.value;
    bool certain = share * share - 1 <= A(1);
    if (!certain && !dense.empty()) {
        std::vector<A> gram(n * n);
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j <= i; ++j) {
                const A* a = dense.data() + i * n;
                const A* b = dense.data() + j * n;
                A sum = 0;
                for (std::size_t k = 0; k < n; ++k) sum += (a[k] / norm.value) * (b[k] / norm.value);
                gram[i * n + j] = (i == j ? limit * limit : A(0)) - sum;
            }
        certain = below_in_norm(std::move(gram), n);
    }
    norm.converged = norm.converged && certain;
    if (certain) norm.bracket.upper = std::min(norm.bracket.upper, norm.value * limit);
}

} // namespace detail

/// Rows up to this length have the spectral norm of `jacobian_norms` from products certified by a factorisation
/// of O(n^3).
inline constexpr std::size_t largest_certified_row = 256;

/// Norms of dp/dz of any normaliser, from its jvp and vjp, evaluated in the accumulator scalar at the logits
/// (p is recomputed).
/// Formula. Entrywise and induced norms exactly, column by column; the spectral norm by an iteration within
/// the certified bracket [largest column norm, min(Frobenius, sqrt(1->1 inf->inf))]; `residual` tells how far
/// it is from a singular pair, and `converged` that the bracket is closed by a certificate: no other singular
/// value is larger, because too little of the Frobenius norm is left or, for rows up to
/// `largest_certified_row`, by a factorisation. inf->1 within [spectral norm, sum of absolute entries].
/// Special rows. An empty row gives 0, a NaN row NaN.
/// Cost. O(n^2) time and O(n) memory, for short rows O(n^3) and O(n^2).
/// Throws. `invalid_argument` when the lengths differ.
template <class N, Real T>
requires Normalizer<N, T> && Normalizer<N, Accumulator<T>>
JacobianNorms<Accumulator<T>> jacobian_norms(const N& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    JacobianNorms<A> norms;
    const std::size_t n = z.size();
    const std::vector<A> wide(z.begin(), z.end());
    std::vector<A> weights(n), direction(n, A(0)), column(n), row_sums(n, A(0));
    const RowStatus status = normalizer.apply(RowIn<A>(wide), RowOut<A>(weights));
    if (status == RowStatus::nan) return norms;
    norms = detail::zero_norms<A>();
    A all = 0;
    std::vector<A> start, dense; // all columns where they are few enough to be factored
    if (n <= largest_certified_row) dense.assign(n * n, A(0));
    for (std::size_t j = 0; j < n; ++j) {
        if (z[j] == -std::numeric_limits<T>::infinity()) continue;
        direction[j] = A(1);
        normalizer.jvp(RowIn<A>(wide), RowIn<A>(weights), RowIn<A>(direction), RowOut<A>(column));
        direction[j] = A(0);
        A sum = 0, largest = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const A entry = std::abs(column[i]);
            largest = std::max(largest, entry);
            sum += entry;
            row_sums[i] += entry;
        }
        if (!dense.empty())
            std::copy(column.begin(), column.end(), dense.begin() + static_cast<std::ptrdiff_t>(j * n));
        if (largest == A(0)) continue;
        A square = 0; // in units of the largest entry, whose own square may underflow
        for (const A entry : column) square += (entry / largest) * (entry / largest);
        const A size = largest * std::sqrt(square);
        norms.max_entry = std::max(norms.max_entry, largest);
        norms.frobenius = std::hypot(norms.frobenius, size);
        all += sum;
        norms.one = std::max(norms.one, sum);
        if (size > norms.column) {
            norms.column = size;
            start.assign(n, A(0));
            // Not exactly the unit vector: that could be orthogonal to what is sought.
            for (std::size_t i = 0; i < n; ++i) start[i] = column[i] / size;
            start[j] += A(1);
            // Nor alike on keys that are alike: what is sought may have opposite signs there.
            SplitMix64 random(n);
            for (std::size_t i = 0; i < n; ++i)
                if (z[i] != -std::numeric_limits<T>::infinity())
                    start[i] += static_cast<A>(0.1 * random.normal());
        }
    }
    for (const A sum : row_sums) norms.infinity = std::max(norms.infinity, sum);
    norms.spectral.bracket = {
        norms.column,
        std::max(norms.column, std::min(norms.frobenius, std::sqrt(norms.one) * std::sqrt(norms.infinity)))};
    if (norms.column > A(0)) {
        const A frobenius = norms.frobenius;
        norms.spectral = detail::LargestSingularValue<N, A>(normalizer, RowIn<A>(wide), RowIn<A>(weights),
                                                            std::move(start), norms.spectral.bracket)
                             .result();
        detail::certify<A>(norms.spectral, frobenius, dense, n);
    }
    norms.infinity_to_one = {norms.spectral.value, all};
    return norms;
}

/// The same for a normaliser over T alone: to the rounding of T. The spectral norm need not converge to the
/// rounding of the accumulator scalar; its `residual` tells.
template <class N, Real T>
requires(Normalizer<N, T> && !Normalizer<N, Accumulator<T>>)
JacobianNorms<Accumulator<T>> jacobian_norms(const N& normalizer, RowIn<T> z, RowIn<T> p) {
    return jacobian_norms(detail::NarrowNormalizer<N, T>(&normalizer), z, p);
}

} // namespace v0_2
} // namespace attnscope
