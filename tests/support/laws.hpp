// The laws that every normaliser obeys. A normaliser of one's own is tested with
//     test_laws<float>(normalizer, reference);  test_special_rows<float>(normalizer, reference);
// where `reference` offers, for rows z of long double,
//     weights(z)            the weights,
//     weight_error<T>(z)    relative error of each weight computed in T (forward-error bound),
//     jvp_error<T>(z, v)    absolute error of J v computed in T, vjp_error<T>(z, w) likewise,
//     step(z, v)            a good step h for central differences of the weights along v,
//     difference_rounding(z, v)  what rounding leaves in (weights(z + h v) - weights(z - h v))/2h,
//     shares_infinity()     whether keys at +inf share all the mass,
// where weights near 0 have no relative error,
//     weight_bound<T>(z)    the absolute error of each weight, in place of weight_error,
// for a sparse normaliser that has no zeros at this parameter,
//     expects_zeros()       false,
// and, where equal logits may get different weights, `separates_ties` and decided<T>(z): whether arithmetic in
// T must choose the same keys on this row.
#pragma once

#include <attnscope/normalizer/concept.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>

#include <numeric>

namespace attnscope_test {

using attnscope::RowStatus;

template <class T, class N>
std::vector<T> weights_of(const N& normalizer, const std::vector<T>& z, RowStatus* status = nullptr) {
    std::vector<T> p(z.size(), T(-7));
    const RowStatus found = normalizer.apply(in(z), out(p));
    if (status != nullptr) *status = found;
    return p;
}

template <class T, class N>
std::vector<T> jvp_of(const N& normalizer, const std::vector<T>& z, const std::vector<T>& p,
                      const std::vector<T>& v) {
    std::vector<T> result(z.size(), T(-7));
    normalizer.jvp(in(z), in(p), in(v), out(result));
    return result;
}

template <class T, class N>
std::vector<T> vjp_of(const N& normalizer, const std::vector<T>& z, const std::vector<T>& p,
                      const std::vector<T>& w) {
    std::vector<T> result(z.size(), T(-7));
    normalizer.vjp(in(z), in(p), in(w), out(result));
    return result;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](T x, T y) {
        return std::signbit(x) == std::signbit(y) && (x == y || (std::isnan(x) && std::isnan(y)));
    });
}

/// A random order of 0 ... n-1 (Fisher and Yates).
inline std::vector<std::size_t> random_order(SplitMix64& random, std::size_t n) {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t(0));
    for (std::size_t i = n; i > 1; --i)
        std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(static_cast<Index>(i)))]);
    return order;
}

template <class R>
constexpr bool separates_ties() {
    if constexpr (requires { R::separates_ties; })
        return R::separates_ties;
    else
        return false;
}

template <class R>
bool expects_zeros(const R& reference) {
    if constexpr (requires { reference.expects_zeros(); })
        return reference.expects_zeros();
    else
        return true;
}

/// Absolute error of each weight computed in T, underflow included.
template <class T, class R>
RefRow weight_bounds(const R& reference, const RefRow& z, const RefRow& exact) {
    RefRow bound(z.size());
    if constexpr (requires { reference.template weight_bound<T>(z); }) {
        bound = reference.template weight_bound<T>(z);
    } else {
        bound = reference.template weight_error<T>(z);
        for (std::size_t i = 0; i < z.size(); ++i) bound[i] *= std::abs(exact[i]);
    }
    for (Ref& x : bound) x += 2 * Ref(std::numeric_limits<T>::min());
    return bound;
}

/// The worst case of each law.
struct LawReport {
    Worst weights, sum, masked, in_place, permutation, placement, adjoint, derivative, simplex_derivative,
        shift_derivative, shift, order, symmetry, positivity;
    std::size_t sparse_zeros = 0;
};

/// Laws about the weights of one row.
template <class T, class N, class R>
void weight_laws(const N& normalizer, const R& reference, const std::vector<T>& z, const Where& where,
                 SplitMix64& random, LawReport& report) {
    constexpr T masked_logit = -std::numeric_limits<T>::infinity();
    const Ref smallest = std::numeric_limits<T>::min();
    const std::size_t n = z.size();
    RowStatus status{};
    const std::vector<T> p = weights_of(normalizer, z, &status);
    const RefRow exact = reference.weights(widen(z));
    const RefRow bound = weight_bounds<T>(reference, widen(z), exact);
    const bool zeros_allowed = N::traits.sparse && expects_zeros(reference);
    // Empty is a row without mass. Mass that underflows in T may count as none.
    Ref largest = 0;
    for (const Ref x : exact) largest = std::max(largest, std::abs(x));
    const bool empty = largest == 0 || (largest <= 4 * smallest && status == RowStatus::empty);
    report.weights.meet(status == (empty ? RowStatus::empty : RowStatus::normal), where);

    Ref sum = 0, sum_tolerance = unit_roundoff<Ref> * Ref(n);
    for (std::size_t i = 0; i < n; ++i) {
        report.weights.meet(std::abs(Ref(p[i]) - exact[i]), bound[i], where);
        if (z[i] == masked_logit)
            report.masked.meet(p[i] == 0 && !std::signbit(p[i]), where);
        else if (!zeros_allowed && exact[i] > 4 * smallest)
            report.positivity.meet(p[i] > 0, where);
        else if (zeros_allowed && p[i] == 0 && exact[i] == 0)
            ++report.sparse_zeros;
        sum += p[i];
        sum_tolerance += bound[i];
    }
    if (N::traits.simplex && !empty) report.sum.meet(std::abs(sum - 1), sum_tolerance, where);

    std::vector<T> same_place = z;
    normalizer.apply(std::span<const T>(same_place), out(same_place));
    report.in_place.meet(same_bits(same_place, p), where);

    const std::vector<std::size_t> order = random_order(random, n);
    std::vector<T> mixed(n);
    for (std::size_t i = 0; i < n; ++i) mixed[i] = z[order[i]];
    const std::vector<T> mixed_p = weights_of(normalizer, mixed);
    for (std::size_t i = 0; i < n && !separates_ties<R>(); ++i)
        report.permutation.meet(std::abs(Ref(mixed_p[i]) - p[order[i]]), 2 * bound[order[i]], where);

    // The same keys at other places modulo every packet size, aligned differently, with masked keys before
    // them.
    for (std::size_t lead = 1; lead <= 17; lead += 1 + n / 8) {
        std::vector<T> moved(lead + n, masked_logit);
        std::copy(z.begin(), z.end(), moved.begin() + static_cast<std::ptrdiff_t>(lead));
        const std::vector<T> moved_p = weights_of(normalizer, moved);
        std::vector<T> unaligned(lead + n, T(-7));
        normalizer.apply(in(moved).subspan(lead), out(unaligned).subspan(lead));
        for (std::size_t i = 0; i < lead; ++i)
            report.masked.meet(moved_p[i] == 0 && unaligned[i] == T(-7), where);
        for (std::size_t i = 0; i < n; ++i) {
            report.placement.meet(std::abs(Ref(moved_p[lead + i]) - p[i]), 2 * bound[i], where);
            report.placement.meet(std::abs(Ref(unaligned[lead + i]) - p[i]), 2 * bound[i], where);
        }
    }

    if (N::traits.order_preserving) {
        std::vector<std::size_t> by_logit(n);
        std::iota(by_logit.begin(), by_logit.end(), std::size_t(0));
        std::sort(by_logit.begin(), by_logit.end(), [&](std::size_t a, std::size_t b) { return z[a] < z[b]; });
        for (std::size_t k = 1; k < n; ++k) {
            const std::size_t low = by_logit[k - 1], high = by_logit[k];
            report.order.meet(Ref(p[low]) - Ref(p[high]), bound[low] + bound[high], where);
        }
    }

    // An offset that is added without rounding.
    for (const Offset<T>& offset : offsets<T>) {
        if (!N::traits.shift_invariant) break;
        std::vector<T> grid = z;
        bool is_exact = true;
        for (T& x : grid) {
            x = std::abs(x) < T(2000) ? on_grid(x, offset) : x;
            is_exact = is_exact && (x == masked_logit || (x + offset.value) - offset.value == x);
        }
        if (!is_exact) continue;
        const std::vector<T> before = weights_of(normalizer, grid),
                             after = weights_of(normalizer, moved(grid, offset));
        const RefRow grid_bound = weight_bounds<T>(reference, widen(grid), reference.weights(widen(grid)));
        for (std::size_t i = 0; i < n; ++i)
            report.shift.meet(std::abs(Ref(before[i]) - Ref(after[i])), 2 * grid_bound[i], where);
    }
}

/// Laws about the derivative at one row.
template <class T, class N, class R>
void derivative_laws(const N& normalizer, const R& reference, const std::vector<T>& z, const Where& where,
                     SplitMix64& random, LawReport& report) {
    constexpr T masked_logit = -std::numeric_limits<T>::infinity();
    const std::size_t n = z.size();
    const RefRow wide_z = widen(z);
    const std::vector<T> p = weights_of(normalizer, z);
    const std::vector<T> v = normal_row<T>(random, n), w = normal_row<T>(random, n);
    const std::vector<T> jv = jvp_of(normalizer, z, p, v), jtw = vjp_of(normalizer, z, p, w);
    const RefRow wide_v = widen(v), wide_w = widen(w);
    const RefRow jv_error = reference.template jvp_error<T>(wide_z, wide_v);
    const RefRow jtw_error = reference.template vjp_error<T>(wide_z, wide_w);

    std::vector<T> v_in_place = v, w_in_place = w;
    normalizer.jvp(in(z), in(p), std::span<const T>(v_in_place), out(v_in_place));
    normalizer.vjp(in(z), in(p), std::span<const T>(w_in_place), out(w_in_place));
    report.in_place.meet(same_bits(v_in_place, jv) && same_bits(w_in_place, jtw), where);

    Ref left = 0, right = 0, tolerance = 0, total = 0, total_tolerance = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (z[i] == masked_logit) report.masked.meet(jv[i] == 0 && jtw[i] == 0, where);
        left += wide_w[i] * jv[i];
        right += wide_v[i] * jtw[i];
        tolerance += std::abs(wide_w[i]) * jv_error[i] + std::abs(wide_v[i]) * jtw_error[i];
        total += jv[i];
        total_tolerance += jv_error[i];
    }
    report.adjoint.meet(std::abs(left - right), tolerance, where);
    if (N::traits.simplex) report.simplex_derivative.meet(std::abs(total), total_tolerance, where);

    // Entries of v and w at masked keys do not matter.
    std::vector<T> other_v = v, other_w = w;
    for (std::size_t i = 0; i < n; ++i)
        if (z[i] == masked_logit) other_v[i] = T(1e6), other_w[i] = T(-1e6);
    report.masked.meet(jvp_of(normalizer, z, p, other_v) == jv, where);
    report.masked.meet(vjp_of(normalizer, z, p, other_w) == jtw, where);
    for (const T any : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(), masked_logit,
                        std::numeric_limits<T>::max()}) {
        for (std::size_t i = 0; i < n; ++i)
            if (z[i] == masked_logit) other_v[i] = other_w[i] = any;
        const std::vector<T> other_jv = jvp_of(normalizer, z, p, other_v),
                             other_jtw = vjp_of(normalizer, z, p, other_w);
        for (std::size_t i = 0; i < n; ++i) {
            // By another order of the same sums.
            report.masked.meet(std::abs(Ref(other_jv[i]) - Ref(jv[i])), 2 * jv_error[i], where);
            report.masked.meet(std::abs(Ref(other_jtw[i]) - Ref(jtw[i])), 2 * jtw_error[i], where);
            if (z[i] == masked_logit) report.masked.meet(other_jv[i] == 0 && other_jtw[i] == 0, where);
        }
    }

    if (N::traits.shift_invariant) {
        const std::vector<T> ones(n, T(1)), constant = jvp_of(normalizer, z, p, ones);
        const RefRow error = reference.template jvp_error<T>(wide_z, RefRow(n, 1));
        for (std::size_t i = 0; i < n; ++i)
            report.shift_derivative.meet(std::abs(constant[i]), error[i], where);
    }
    if (N::traits.symmetric_jacobian) {
        const std::vector<T> jw = jvp_of(normalizer, z, p, w);
        const RefRow error = reference.template jvp_error<T>(wide_z, wide_w);
        for (std::size_t i = 0; i < n; ++i)
            report.symmetry.meet(std::abs(Ref(jw[i]) - Ref(jtw[i])), error[i] + jtw_error[i], where);
    }

    // Central differences of the reference's weights with steps h and 2h; their disagreement is at least twice
    // the truncation error that is left in the first.
    const Ref h = reference.step(wide_z, wide_v);
    const auto along = [&](Ref step) {
        RefRow point = wide_z;
        for (std::size_t i = 0; i < n; ++i) point[i] += step * wide_v[i];
        return reference.weights(point);
    };
    const RefRow forward = along(h), back = along(-h), forward2 = along(2 * h), back2 = along(-2 * h);
    const RefRow rounding = reference.difference_rounding(wide_z, wide_v);
    // A key or a cut at its threshold: no derivative there.
    for (std::size_t i = 0; i < n && N::traits.sparse; ++i)
        if ((forward2[i] > 0) != (back2[i] > 0)) return;
    for (std::size_t i = 0; i < n; ++i) {
        if (z[i] == masked_logit) continue;
        const Ref once = (forward[i] - back[i]) / (2 * h), twice = (forward2[i] - back2[i]) / (4 * h);
        report.derivative.meet(
            std::abs(Ref(jv[i]) - once),
            jv_error[i] + std::abs(once - twice) + rounding[i] + 4 * Ref(std::numeric_limits<T>::min()), where);
    }
}

/// All laws on all families and lengths. `temperature` only labels failures.
template <class T, class N, class R>
void test_laws(const N& normalizer, const R& reference, double temperature = 1) {
    const std::uint64_t seed = test_seed();
    LawReport report;
    for_each_row<T>(seed, lengths, 1, [&](Where where, const std::vector<T>& z) {
        where.temperature = temperature;
        where.normalizer = normalizer.name();
        if constexpr (separates_ties<R>())
            if (!reference.template decided<T>(widen(z))) return;
        SplitMix64 random = generator(seed, z.size(), 77);
        weight_laws(normalizer, reference, z, where, random, report);
        derivative_laws(normalizer, reference, z, where, random, report);
    });
    ATTNSCOPE_CHECK_WORST(report.weights);
    ATTNSCOPE_CHECK_WORST(report.masked);
    ATTNSCOPE_CHECK_WORST(report.in_place);
    if (!separates_ties<R>()) ATTNSCOPE_CHECK_WORST(report.permutation);
    ATTNSCOPE_CHECK_WORST(report.placement);
    ATTNSCOPE_CHECK_WORST(report.adjoint);
    ATTNSCOPE_CHECK_WORST(report.derivative);
    if (N::traits.simplex) {
        ATTNSCOPE_CHECK_WORST(report.sum);
        ATTNSCOPE_CHECK_WORST(report.simplex_derivative);
    }
    if (N::traits.shift_invariant) {
        ATTNSCOPE_CHECK_WORST(report.shift);
        ATTNSCOPE_CHECK_WORST(report.shift_derivative);
    }
    if (N::traits.order_preserving) ATTNSCOPE_CHECK_WORST(report.order);
    if (N::traits.symmetric_jacobian) ATTNSCOPE_CHECK_WORST(report.symmetry);
    if (N::traits.sparse && expects_zeros(reference))
        CHECK(report.sparse_zeros > 0);
    else
        ATTNSCOPE_CHECK_WORST(report.positivity);
}

/// Where weights and log-sum-exp come at once: the bits of the two calls, in place and not, of special rows too.
template <class T, class N>
void test_fused_log_sum_exp(const N& normalizer) {
    if constexpr (attnscope::HasFusedLogSumExp<N, T>) {
        constexpr T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
        Worst worst;
        const auto check = [&](const Where& where, const std::vector<T>& z) {
            RowStatus status{};
            const std::vector<T> p = weights_of(normalizer, z, &status);
            const T sum = normalizer.log_sum_exp(in(z));
            std::vector<T> fused(z.size(), T(7)), in_place = z;
            T found = 7, found_in_place = 7;
            worst.meet(normalizer.apply(in(z), out(fused), found) == status, where);
            worst.meet(normalizer.apply(in(in_place), out(in_place), found_in_place) == status, where);
            worst.meet(same_bits(fused, p) && same_bits(in_place, p), where);
            worst.meet((found == sum || (std::isnan(found) && std::isnan(sum))) &&
                           (found_in_place == sum || (std::isnan(found_in_place) && std::isnan(sum))),
                       where);
        };
        for_each_row<T>(test_seed(), lengths, 1, check);
        for (const std::vector<T>& z :
             std::vector<std::vector<T>>{{},
                                         {-infinity},
                                         {-infinity, -infinity, -infinity},
                                         {0, infinity, 1},
                                         {-infinity, infinity, infinity},
                                         {nan},
                                         {nan, -infinity},
                                         {1, nan, infinity},
                                         {std::numeric_limits<T>::max(), 0},
                                         {std::numeric_limits<T>::lowest(), -infinity}})
            check(Where{"special", z.size()}, z);
        ATTNSCOPE_CHECK_WORST(worst);
    }
}

/// Empty, all-masked, NaN and +inf rows.
template <class T, class N, class R>
void test_special_rows(const N& normalizer, const R& reference) {
    test_fused_log_sum_exp<T>(normalizer);
    constexpr T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    CAPTURE(std::string(normalizer.name()), std::string(scalar_name<T>()));
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    RowStatus status{};

    CHECK(weights_of(normalizer, std::vector<T>{}, &status).empty());
    CHECK(status == RowStatus::empty);

    for (std::size_t n : lengths) {
        CAPTURE(n);
        SplitMix64 random = generator(seed, n, 5);
        const std::vector<T> v = normal_row<T>(random, n), zeros(n, T(0));
        const std::vector<T> hidden(n, -infinity);
        CHECK(same_bits(weights_of(normalizer, hidden, &status), zeros));
        CHECK(status == RowStatus::empty);
        std::vector<T> derivative = jvp_of(normalizer, hidden, zeros, v);
        CHECK(std::all_of(derivative.begin(), derivative.end(), [](T x) { return x == 0; }));
        derivative = vjp_of(normalizer, hidden, zeros, v);
        CHECK(std::all_of(derivative.begin(), derivative.end(), [](T x) { return x == 0; }));

        const auto all_nan = [](const std::vector<T>& row) {
            return std::all_of(row.begin(), row.end(), [](T x) { return std::isnan(x); });
        };
        // NaN at every position of short rows and at the ends and around packets of long ones, alone, among
        // masked keys, and beside +inf on either side.
        bool nan_everywhere = true, nan_derivative = true, nan_status = true;
        for (std::size_t i = 0; i < n; ++i) {
            if (n > 300 && i > 40 && i + 40 < n) continue;
            std::vector<T> rows[4] = {v, hidden, v, v};
            for (auto& row : rows) row[i] = nan;
            if (n > 1) {
                rows[2][(i + 1) % n] = infinity;
                rows[3][i == 0 ? n - 1 : 0] = infinity;
            }
            for (const auto& row : rows) {
                const std::vector<T> p = weights_of(normalizer, row, &status);
                nan_everywhere = nan_everywhere && all_nan(p);
                nan_status = nan_status && status == RowStatus::nan;
                nan_derivative = nan_derivative && all_nan(jvp_of(normalizer, row, p, v)) &&
                                 all_nan(vjp_of(normalizer, row, p, v));
            }
        }
        CHECK(nan_everywhere);
        CHECK(nan_status);
        CHECK(nan_derivative);

        // +inf at one key, at every third, at all; finite and masked keys beside them.
        for (std::size_t step : {n, std::size_t(3), std::size_t(1)}) {
            std::vector<T> row = v;
            if (n > 4) row[n - 2] = -infinity;
            std::size_t count = 0;
            for (std::size_t i = (step == n ? n / 2 : 0); i < n; i += step) {
                row[i] = infinity;
                ++count;
            }
            CAPTURE(step, count);
            const std::vector<T> p = weights_of(normalizer, row, &status);
            if (reference.shares_infinity()) {
                CHECK(status == RowStatus::infinite);
                bool shared = true;
                for (std::size_t i = 0; i < n; ++i)
                    shared = shared && p[i] == (row[i] == infinity ? T(1) / T(count) : T(0));
                CHECK(shared);
            } else {
                CHECK(status == RowStatus::normal);
                const RefRow exact = reference.weights(widen(row));
                const RefRow error = reference.template weight_error<T>(widen(row));
                Worst worst;
                for (std::size_t i = 0; i < n; ++i)
                    worst.meet(std::abs(Ref(p[i]) - exact[i]), exact[i] * error[i], Where{"infinite", n});
                ATTNSCOPE_CHECK_WORST(worst);
            }
        }
    }
}

} // namespace attnscope_test
