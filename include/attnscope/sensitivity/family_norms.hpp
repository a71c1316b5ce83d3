// Norms of the Jacobian of the paper's general family, p_i = F(z_i)/sum F, and of whatever has its form.
#pragma once

#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/normalizer/pointwise.hpp>
#include <attnscope/sensitivity/softmax_norms.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

template <class A>
struct Inertia {
    int positive = 0;
    A determinant = 1;
};

/// Number of positive eigenvalues of a small symmetric matrix, and its determinant, by the symmetric elimination of Bunch
/// and Parlett: pivots of one row, or of two whose determinant is negative. A zero eigenvalue does not count.
template <class A, std::size_t N>
Inertia<A> inertia(std::array<std::array<A, N>, N> m) {
    std::array<bool, N> done{};
    Inertia<A> found;
    for (std::size_t left = N; left > 0;) {
        std::size_t d = N, p = N, q = N;
        for (std::size_t i = 0; i < N; ++i) {
            if (done[i]) continue;
            if (d == N || std::abs(m[i][i]) > std::abs(m[d][d])) d = i;
            for (std::size_t j = 0; j < i; ++j)
                if (!done[j] && (p == N || std::abs(m[i][j]) > std::abs(m[p][q]))) p = i, q = j;
        }
        const A diagonal = m[d][d];
        if (p == N || std::abs(diagonal) >= A(0.64) * std::abs(m[p][q])) {
            found.determinant *= diagonal;
            if (!(std::abs(diagonal) > A(0))) return found;
            found.positive += diagonal > A(0);
            done[d] = true;
            --left;
            for (std::size_t i = 0; i < N; ++i)
                if (!done[i]) {
                    const A factor = m[i][d] / diagonal;
                    for (std::size_t j = 0; j < N; ++j)
                        if (!done[j]) m[i][j] -= factor * m[d][j];
                }
        } else {
            ++found.positive;
            done[p] = done[q] = true;
            left -= 2;
            const A off = m[p][q], a = m[p][p] / off, c = m[q][q] / off, det = a * c - 1;
            found.determinant *= off * off * det;
            for (std::size_t i = 0; i < N; ++i)
                if (!done[i]) {
                    const A x = m[i][p] / off, y = m[i][q] / off;
                    const A of_p = (c * x - y) / det, of_q = (a * y - x) / det;
                    for (std::size_t j = 0; j < N; ++j)
                        if (!done[j]) m[i][j] -= of_p * m[p][j] + of_q * m[q][j];
                }
        }
    }
    return found;
}

/// Eigenvalue counting for J^T J of J = (I - p 1^T) diag(g). With the row of the largest weight eliminated
/// through 1^T J = 0, J^T J = [[c, -g1 (tau a + b)^T], [., diag(g^2) + gamma a a^T - a b^T - b a^T]] with a =
/// g, b = p g over the other keys, R = sum p, Q = sum p^2 over them, tau = R - Q - R^2, gamma = Q + (1-R)^2, c
/// = g1^2 (Q + R^2): no entry cancels when p1 is near 1.
template <Real A>
class GeneralJacobian {
public:
    template <class Weight>
    GeneralJacobian(const RestSums<A>& sums, std::span<const A> g, const Weight& p) : rest_(sums.rest) {
        const A q = sums.squares / rest_; // Q/R: keeps its digits where Q underflows
        tau_ = 1 - q - rest_;
        gamma_ = sums.squares + (1 - rest_) * (1 - rest_);
        g1_ = g[sums.top];
        corner_ = q / rest_ + 1;
        squares_.reserve(g.size() - 1);
        shares_.reserve(g.size() - 1);
        for (std::size_t i = 0; i < g.size(); ++i) {
            if (i == sums.top) continue;
            squares_.push_back(g[i] * g[i]);
            shares_.push_back(p(i) / rest_);
        }
    }

    struct Count {
        int eigenvalues; ///< of J^T J above x
        int poles;       ///< g^2 of other keys above x
        A value;         ///< between two poles a smooth function of x whose zeros are the eigenvalues
    };

    /// What is above x > 0.
    Count above(A x) {
        // The key whose pole is nearest to x is not eliminated: dividing by a small distance costs digits.
        // Equal keys are one key, coupled by the root of their number, and copies that are not coupled.
        find_kept(x);
        const A kept_square = kept_.empty() ? A(0) : squares_[kept_[0]],
                kept_p = kept_.empty() ? A(0) : shares_[kept_[0]], kept_distance = kept_square - x;
        // Sum over the other keys of g^2/(g^2-x) (1, p/R)^T (1, p/R); a key without g adds nothing.
        for (const std::size_t i : kept_) squares_[i] = 0;
        const P at = x, zero = A(0), smallest = std::numeric_limits<A>::denorm_min(),
                nearly = -x * std::numeric_limits<A>::epsilon();
        P w11 = zero, w12 = zero, w22 = zero;
        int count = 0;
        for_each_lane<A>(std::ssize(squares_), [&](const auto& lane) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            const P square = lane(squares_.data(), A(0)), p = lane(shares_.data(), A(0)), exact = square - at;
            const P distance = select_below(abs(exact), smallest, nearly, exact);
            count += std::popcount(mask_not_below(distance, smallest));
            const P ratio = square / distance, first = ratio * p;
            w11 += ratio;
            w12 += first;
            w22 = madd(first, p, w22);
        });
        for (const std::size_t i : kept_) squares_[i] = kept_square;
        int kept = static_cast<int>(kept_.size());
        if (kept_square == A(0)) kept = 0; // not coupled, eigenvalue 0 < x
        count += kept > 1 && kept_distance > A(0) ? kept - 1 : 0;
        // Bordered matrix of the kept key, the two couplings a and b/R, their multipliers and the top key,
        // whose elimination in other orders gives J^T J - x and two eigenvalues of each sign. All entries are
        // of the size of 1 however small R is.
        const A t = g1_ == A(0) ? A(0) : A(1), r = rest_;
        const A key = kept > 0 ? kept_distance / (kept_square * static_cast<A>(kept)) : A(-1);
        const A one = kept > 0 ? A(1) : A(0), p = kept > 0 ? kept_p : A(0);
        const A top = t > A(0) ? corner_ - x / (g1_ * r) / (g1_ * r) : A(-1);
        const A a = reduce_add(w11), b = reduce_add(w12), c = reduce_add(w22);
        const Inertia<A> bordered = inertia<A, 6>({{{key, one, p, 0, 0, 0},
                                                    {one, -a, -b, 1, 0, 0},
                                                    {p, -b, -c, 0, 1, 0},
                                                    {0, 1, 0, gamma_, -r, t * tau_},
                                                    {0, 0, 1, -r, 0, t},
                                                    {0, 0, 0, t * tau_, t, top}}});
        // As if the kept key were eliminated too: which key it is changes with x.
        return {count + bordered.positive - 2, count + (kept > 0 && kept_distance > A(0)),
                bordered.determinant / key};
    }

private:
    using P = Packet<A>;

    /// The first key whose g^2 is nearest to x, and those that equal it.
    void find_kept(A x) {
        const P at = x;
        constexpr A infinity = std::numeric_limits<A>::infinity();
        P nearest = infinity;
        for_each_lane<A>(std::ssize(squares_), [&](const auto& lane) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            nearest = min(nearest, abs(lane(squares_.data(), infinity) - at));
        });
        const P limit = reduce_min(nearest);
        kept_.clear();
        for_each_lane<A>(std::ssize(squares_), [&](const auto& lane) {
            for (std::uint32_t mask = mask_not_below(limit, abs(lane(squares_.data(), infinity) - at));
                 mask != 0; mask &= mask - 1) {
                const auto i = static_cast<std::size_t>(lane.i + std::countr_zero(mask));
                if (i >= squares_.size()) break; // padding, where every square overflows
                if (kept_.empty() || (squares_[i] == squares_[kept_[0]] && shares_[i] == shares_[kept_[0]]))
                    kept_.push_back(i);
            }
        });
    }

    std::vector<A> squares_, shares_; ///< g^2 and p/R of the other keys
    std::vector<std::size_t> kept_;
    A rest_, tau_, gamma_, g1_, corner_;
};

/// Norms of (I - p 1^T) diag(g), sum p = 1, from p and g. The spectral norm is found by
/// counting eigenvalues of J^T J (diagonal plus rank two): about 20 counts of O(n) each, at most 300, safe with ties and
/// poles. inf->1 is bracketed by [spectral norm, sum of absolute column sums].
template <Real T>
JacobianNorms<Accumulator<T>> family_norms(RowIn<T> p, std::span<const Accumulator<T>> gradient) {
    using A = Accumulator<T>;
    JacobianNorms<A> norms;
    A mass = 0;
    for (const T x : p) mass += x;
    if (!(mass > 0)) return mass == 0 ? zero_norms<A>() : norms;
    A largest = 0;
    for (const A g : gradient) largest = std::max(largest, std::abs(g));
    // Squares of slopes have to be numbers: a power of two goes before the matrix.
    const A far = std::sqrt(std::sqrt(std::numeric_limits<A>::max()));
    if ((largest > far || largest < 1 / far) && largest > 0 && std::isfinite(largest)) {
        const int exponent = std::ilogb(largest);
        std::vector<A> near(gradient.begin(), gradient.end());
        for (A& g : near) g = std::scalbn(g, -exponent);
        return scaled(family_norms<T>(p, std::span<const A>(near)), std::scalbn(A(1), exponent));
    }
    const auto sums = rest_sums<T>(p);
    const auto weight = [&](std::size_t i) { return A(p[i]); };
    A columns = 0, column_sums = 0, others_gradient = 0; // others_gradient: sum of |g| without the top key
    A longest = 0;                                       // column, squared
    A seen = 0, steepest = 0;                            // keys of weight, max |g|
    norms.max_entry = norms.one = norms.infinity = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        if (i != sums.top) others_gradient += std::abs(gradient[i]);
    const A top_gradient = std::abs(gradient[sums.top]);
    for (std::size_t i = 0; i < p.size(); ++i) {
        const A slope = std::abs(gradient[i]), w = weight(i);
        const bool top = i == sums.top;
        const A without = top ? sums.rest : 1 - w; // 1 - p_i
        const A others = top ? sums.squares : std::max(A(0), sums.squares - w * w) + sums.p1 * sums.p1;
        const A square = slope * slope * (without * without + others);
        columns += square;
        seen += w != A(0);
        steepest = std::max(steepest, slope);
        longest = std::max(longest, square);
        norms.max_entry = std::max({norms.max_entry, slope * without, slope * (top ? sums.p2 : sums.p1)});
        norms.one = std::max(norms.one, 2 * slope * without);
        column_sums += 2 * slope * without;
        const A elsewhere = top ? others_gradient : top_gradient + std::max(A(0), others_gradient - slope);
        norms.infinity = std::max(norms.infinity, slope * without + w * elsewhere);
    }
    norms.column = std::sqrt(longest);
    norms.frobenius = std::sqrt(columns);

    GeneralJacobian<A> jacobian(sums, gradient, weight);
    // |J| <= |I - p 1^T| max|g|, and the first is |p| |1| over the keys of weight, as of any projection. One per cent for
    // weights whose sum is not quite 1.
    const A projection = seen * (sums.p1 * sums.p1 + sums.squares);
    A low = norms.column * norms.column,
      high = std::max(low, std::min(columns, A(1.01) * steepest * steepest * projection));
    norms.spectral.bracket = {norms.column, norms.frobenius};
    const A precision = std::numeric_limits<A>::epsilon();
    // low is at or below the largest eigenvalue, high at or above it, as counted. Where no pole is between them, the line
    // between the values at both ends says where to count next, a value that stays counting half (the Illinois method);
    // else, and where three lines have not halved the interval, its middle.
    using Count = typename GeneralJacobian<A>::Count;
    std::optional<Count> at_low, at_high;
    A width = high - low;
    for (int lines = 0, side = 0; high - low > 2 * precision * high && norms.spectral.steps < 300;) {
        A next = low + (high - low) / 2;
        if (lines < 3 && at_low && at_high && at_low->poles == at_high->poles) {
            const A line = low + (high - low) * (at_low->value / (at_low->value - at_high->value));
            const A least = precision * high; // so that the end that is next to the root does not stay alone
            if (line >= low && line <= high) next = std::clamp(line, low + least, high - least);
        }
        ++norms.spectral.steps;
        const Count found = jacobian.above(next);
        const bool below = found.eigenvalues > 0;
        (below ? low : high) = next;
        (below ? at_low : at_high) = found;
        if (auto& stays = below ? at_high : at_low; stays && side == (below ? 1 : -1)) stays->value /= 2;
        side = below ? 1 : -1;
        lines = lines == 3 ? 0 : lines + 1;
        if (high - low <= width / 2) {
            width = high - low;
            lines = 0;
        }
    }
    norms.spectral.converged = high - low <= 2 * precision * high;
    norms.spectral.value = std::sqrt(low + (high - low) / 2);
    norms.infinity_to_one = {norms.spectral.value, column_sums};
    return norms;
}

/// g of a normaliser whose Jacobian is (I - p 1^T) diag(g): `fill(normalizer, z, p, g)`. `closed`: its norms
/// have closed forms of their own.
template <class N>
struct FamilyGradient {
    static constexpr bool known = false, closed = false;
};
template <>
struct FamilyGradient<Softmax> {
    static constexpr bool known = true, closed = true;
    template <Real A>
    static void fill(const Softmax& normalizer, RowIn<A>, RowIn<A> p, RowOut<A> g) {
        const A temperature = A(normalizer.temperature());
        std::transform(p.begin(), p.end(), g.begin(), [&](A x) { return x / temperature; });
    }
};
template <class N>
requires LengthScaled<N, double>
struct FamilyGradient<N> {
    static constexpr bool known = true, closed = true;
    template <Real A>
    static void fill(const N& normalizer, RowIn<A> z, RowIn<A> p, RowOut<A> g) {
        const A beta = static_cast<A>(normalizer.inverse_temperature(count_visible<A>(z)));
        std::transform(p.begin(), p.end(), g.begin(), [&](A x) { return beta * x; });
    }
};
template <class F>
struct FamilyGradient<PointwiseNormalizer<F>> {
    static constexpr bool known = true, closed = false;
    template <Real A>
    static void fill(const PointwiseNormalizer<F>& normalizer, RowIn<A> z, RowIn<A> p, RowOut<A> g) {
        normalizer.template gradients<A>(z, p, g);
    }
};
/// A map of the logits in front multiplies g by its slope.
template <class Map, class N>
struct FamilyGradient<MappedNormalizer<Map, N>> {
    static constexpr bool known = FamilyGradient<N>::known, closed = false;
    template <Real A>
    static void fill(const MappedNormalizer<Map, N>& normalizer, RowIn<A> z, RowIn<A> p, RowOut<A> g) {
        std::vector<A> mapped(z.size());
        normalizer.template mapped<A>(z, RowOut<A>(mapped));
        FamilyGradient<N>::template fill<A>(normalizer.inner(), RowIn<A>(mapped), p, g);
        normalizer.map().template scale_by_slope<A>(z, RowIn<A>(g), g);
    }
};
/// A choice behind leaves the form as it is, on the kept keys.
template <class N, class Choice>
struct FamilyGradient<RestrictedNormalizer<N, Choice>> {
    static constexpr bool known = FamilyGradient<N>::known, closed = false;
    template <Real A>
    static void fill(const RestrictedNormalizer<N, Choice>& normalizer, RowIn<A> z, RowIn<A> p, RowOut<A> g) {
        FamilyGradient<N>::template fill<A>(normalizer.inner(), z, p, g);
    }
};

} // namespace detail

/// A normaliser whose Jacobian is (I - p 1^T) diag(g) with known g: `PointwiseNormalizer`, and softmax and its
/// length-scaled kin behind a softcap or in front of a choice.
template <class N, class T>
concept FamilyMember = Normalizer<N, T> && Normalizer<N, Accumulator<T>> && detail::FamilyGradient<N>::known &&
                       !detail::FamilyGradient<N>::closed;

/// Norms of dp/dz of the general family, from logits and weights of a normal row; P Lemma 2's exact
/// counterpart.
/// Formula. J = (I - p 1^T) diag(g), g_i = p_i F'(z_i)/F(z_i). The spectral norm is a root, found by
/// counting eigenvalues, to rounding; inf->1 lies in [spectral norm, sum of absolute column sums].
/// Special rows. An empty row gives 0, a NaN row NaN.
/// Cost. About 20 passes of O(n), at most 300, allocates five rows.
/// Throws. `invalid_argument` when the lengths differ.
template <class F, Real T>
JacobianNorms<Accumulator<T>> jacobian_norms(const PointwiseNormalizer<F>& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    const std::vector<A> logits(z.begin(), z.end()), weights(p.begin(), p.end());
    std::vector<A> gradient(z.size());
    normalizer.template gradients<A>(logits, weights, gradient);
    return detail::family_norms<T>(p, gradient);
}

/// The same for normalisers whose Jacobian has that form. Allocates five rows.
template <class N, Real T>
requires FamilyMember<N, T>
JacobianNorms<Accumulator<T>> jacobian_norms(const N& normalizer, RowIn<T> z, RowIn<T> p) {
    using A = Accumulator<T>;
    detail::require_same_size<T>("jacobian_norms", z, p);
    const std::vector<A> logits(z.begin(), z.end()), weights(p.begin(), p.end());
    std::vector<A> gradient(z.size());
    detail::FamilyGradient<N>::template fill<A>(normalizer, RowIn<A>(logits), RowIn<A>(weights),
                                                RowOut<A>(gradient));
    return detail::family_norms<T>(p, gradient);
}

} // namespace v0_2
} // namespace attnscope
