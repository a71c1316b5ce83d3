// The streaming state of a row: a monoid whose figures are those of the whole row.
#include <attnscope/streaming/row_state.hpp>
#include <support/rows.hpp>

#include <numeric>

using namespace attnscope_test;
using attnscope::RowState;
using attnscope::RowStatistics;
using attnscope::RowStatus;

namespace {

static_assert(std::is_trivially_copyable_v<RowState<float, 8>>);
static_assert(std::is_trivially_copyable_v<RowState<double, 2>>);

/// Entropy, 1 - p1, S2, S3 and log-sum-exp of a row in long double, added from the small end.
struct ExactRow {
    Ref entropy = 0, rest = 0, s2 = 0, s3 = 0, log_sum_exp = 0;
};
ExactRow exact_row(const RefRow& z) {
    RefRow u;
    const Ref m = *std::max_element(z.begin(), z.end());
    for (const Ref x : z)
        if (x != families::masked_logit) u.push_back(m - x);
    std::sort(u.begin(), u.end(), std::greater<>());
    u.pop_back(); // the largest logit
    Ref r = 0, t = 0, q = 0, c = 0;
    for (const Ref x : u) {
        const Ref e = std::exp(-x);
        r += e;
        t += x * e;
        q += e * e;
        c += e * e * e;
    }
    return {std::log1p(r) + t / (1 + r), r / (1 + r), (1 + q) / ((1 + r) * (1 + r)),
            (1 + c) / ((1 + r) * (1 + r) * (1 + r)), m + std::log1p(r)};
}

template <class T, Index K>
RowState<T, K> state_of(const std::vector<T>& z, std::size_t begin, std::size_t end) {
    RowState<T, K> state;
    state.add(in(z).subspan(begin, end - begin), static_cast<Index>(begin));
    return state;
}

/// Relative tolerance of a figure: the statistics of one row promise 1e-6 (float) and 1e-13 (double); every
/// piece adds a few roundings of double.
template <class T>
Ref promised(std::size_t pieces) {
    return (std::is_same_v<T, float> ? Ref(1e-6) : Ref(1e-13)) +
           8 * static_cast<Ref>(pieces) * unit_roundoff<double>;
}

/// All figures of two states of one row agree, and their lists are the same.
template <class T, Index K>
void meet_same(Worst& worst, const RowState<T, K>& a, const RowState<T, K>& b, std::size_t pieces,
               const Where& where) {
    const auto x = a.statistics(), y = b.statistics();
    worst.meet(a.status() == b.status() && a.finite_keys() == b.finite_keys() && a.nan_keys() == b.nan_keys() &&
                   a.infinite_keys() == b.infinite_keys() && a.leaders() == b.leaders(),
               where);
    for (Index i = 0; i < a.leaders().size(); ++i)
        worst.meet(a.leading_logit(i) == b.leading_logit(i) && a.leading_key(i) == b.leading_key(i), where);
    if (a.status() != RowStatus::normal) return;
    worst.meet(x.max_logit == y.max_logit && x.min_logit == y.min_logit && x.argmax == y.argmax, where);
    const Ref tolerance = 2 * promised<T>(pieces);
    // Terms such as u^2 e^{-u} may underflow in T.
    const Ref underflow = 2 * static_cast<Ref>(a.finite_keys()) * Ref(std::numeric_limits<T>::min());
    const auto close = [&](Ref p, Ref q) {
        worst.meet(std::abs(p - q), tolerance * std::abs(q) + underflow, where);
    };
    close(x.entropy_nats(), y.entropy_nats());
    close(x.rest(), y.rest());
    close(x.power_sum_2(), y.power_sum_2());
    close(x.power_sum_3(), y.power_sum_3());
    close(x.r, y.r);
    close(x.v, y.v);
}

} // namespace

TEMPLATE_TEST_CASE("a row in pieces has the figures of the whole row", "[streaming][row_state]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst figures, list, counts;
    for_each_row<T>(seed, lengths, 2, [&](const Where& where, const std::vector<T>& z) {
        for (const std::size_t piece : {std::size_t(1), std::size_t(3), std::size_t(64), z.size()}) {
            RowState<T, 8> state;
            for (std::size_t begin = 0; begin < z.size(); begin += piece)
                state.add(in(z).subspan(begin, std::min(piece, z.size() - begin)), static_cast<Index>(begin));
            const std::size_t visible = visible_count(z);
            counts.meet(state.finite_keys() == static_cast<Index>(visible) &&
                            state.status() == (visible > 0 ? RowStatus::normal : RowStatus::empty),
                        where);
            // The list is the head of a stable sort.
            std::vector<std::size_t> order;
            for (std::size_t i = 0; i < z.size(); ++i)
                if (z[i] > -std::numeric_limits<T>::infinity()) order.push_back(i);
            std::stable_sort(order.begin(), order.end(),
                             [&](std::size_t a, std::size_t b) { return z[a] > z[b]; });
            list.meet(state.leaders().size() == static_cast<Index>(std::min<std::size_t>(8, visible)), where);
            for (Index i = 0; i < state.leaders().size(); ++i)
                list.meet(state.leading_key(i) == static_cast<Index>(order[static_cast<std::size_t>(i)]) &&
                              state.leading_logit(i) == z[order[static_cast<std::size_t>(i)]],
                          where);
            if (visible == 0) return;
            const ExactRow exact = exact_row(widen(z));
            const auto row = state.statistics();
            const Ref tolerance = promised<T>((z.size() + piece - 1) / piece);
            const Ref underflow = static_cast<Ref>(visible) * Ref(std::numeric_limits<T>::min()) * 100;
            const auto close = [&](Ref value, Ref expected) {
                figures.meet(std::abs(value - expected), tolerance * expected + underflow, where);
            };
            close(row.entropy_nats(), exact.entropy);
            close(row.rest(), exact.rest);
            close(row.power_sum_2(), exact.s2);
            close(row.power_sum_3(), Ref(exact.s3) + 0);
            figures.meet(std::abs(Ref(row.log_sum_exp()) - exact.log_sum_exp),
                         tolerance + 4 * unit_roundoff<double> * std::abs(exact.log_sum_exp), where);
        }
    });
    ATTNSCOPE_CHECK_WORST(figures);
    ATTNSCOPE_CHECK_WORST(list);
    ATTNSCOPE_CHECK_WORST(counts);
}

TEMPLATE_TEST_CASE("row states are a commutative monoid", "[streaming][row_state]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    for_each_row<T>(seed, lengths, 2, [&](const Where& where, const std::vector<T>& z) {
        SplitMix64 random = generator(seed, z.size(), 41);
        const auto cut = [&] {
            return static_cast<std::size_t>(random.below(static_cast<Index>(z.size() + 1)));
        };
        const std::size_t x = cut(), y = cut(), i = std::min(x, y), j = std::max(x, y);
        const RowState<T, 4> whole = state_of<T, 4>(z, 0, z.size()), a = state_of<T, 4>(z, 0, i),
                             b = state_of<T, 4>(z, i, j), c = state_of<T, 4>(z, j, z.size()), empty;
        const auto merged = [](RowState<T, 4> s, const RowState<T, 4>& t) {
            s.merge(t);
            return s;
        };
        // The identity changes nothing, to the last bit.
        const RowState<T, 4> left = merged(empty, b), right = merged(b, empty);
        worst.meet(left == b && right == b, where);
        meet_same(worst, merged(a, b), merged(b, a), 2, where);
        meet_same(worst, merged(merged(a, b), c), merged(a, merged(b, c)), 3, where);
        meet_same(worst, merged(merged(c, a), b), whole, 3, where);
    });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("terms of a piece stand beside the largest logit so far", "[streaming][row_state]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    for_each_row<T>(seed, lengths, 1, [&](const Where& where, const std::vector<T>& z) {
        if (visible_count(z) == 0) return;
        constexpr std::size_t piece = 48;
        RowState<T, 2> state;
        std::vector<T> terms = z; // in place
        std::vector<Ref> scaled(z.size());
        for (std::size_t begin = 0; begin < z.size(); begin += piece) {
            const std::size_t count = std::min(piece, z.size() - begin);
            const auto part = out(terms).subspan(begin, count);
            const Ref factor = state.add(std::span<const T>(part), static_cast<Index>(begin), part);
            for (std::size_t i = 0; i < begin; ++i) scaled[i] *= factor;
            for (std::size_t i = 0; i < count; ++i) scaled[begin + i] = part[i];
        }
        const Ref m = *std::max_element(z.begin(), z.end());
        for (std::size_t i = 0; i < z.size(); ++i) {
            const Ref exact = z[i] == -std::numeric_limits<T>::infinity() ? Ref(0) : std::exp(Ref(z[i]) - m);
            // The distance is corrected for its rounding; exp to 1.02 ulp, a product, and the factors in
            // double.
            worst.meet(std::abs(scaled[i] - exact),
                       exact * (8 * unit_roundoff<T> + 64 * unit_roundoff<double> * (1 + std::abs(m))) +
                           2 * Ref(std::numeric_limits<T>::min()),
                       where);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("NaN and +inf keys are counted wherever they come", "[streaming][row_state]", float,
                   double) {
    using T = TestType;
    constexpr T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
    for (const std::size_t n : {1u, 2u, 9u, 17u, 200u})
        for (std::size_t at = 0; at < n; at += 1 + n / 7)
            for (const T special : {nan, inf}) {
                CAPTURE(n, at, special);
                for (const bool hidden : {false, true}) {
                    std::vector<T> z(n, hidden ? -inf : T(0.5));
                    z[at] = special;
                    RowState<T, 2> state;
                    state.add(in(z), 0);
                    CHECK(state.nan_keys() == (special != special));
                    CHECK(state.infinite_keys() == (special == inf));
                    CHECK(state.finite_keys() == (hidden ? 0 : static_cast<Index>(n) - 1));
                    CHECK(state.status() == (special == inf ? RowStatus::infinite : RowStatus::nan));
                    CHECK(std::isnan(state.statistics().entropy_nats()));
                }
            }
    RowState<T, 2> state;
    CHECK(state.status() == RowStatus::empty);
    state.add(in(std::vector<T>(70, -inf)), 0);
    CHECK(state.status() == RowStatus::empty);
    CHECK(state.finite_keys() == 0);
    state.add(in(std::vector<T>{}), 70);
    CHECK(state.statistics().log_sum_exp() == -inf);
    // The most negative numbers leave no room below them for what has no weight.
    const T lowest = std::numeric_limits<T>::lowest();
    RowState<T, 2> low;
    low.add(in(std::vector<T>{lowest, -inf, lowest, -inf, -inf}), 0);
    CHECK(low.finite_keys() == 2);
    CHECK(low.statistics().max_weight() == 0.5);
}

TEMPLATE_TEST_CASE("the mass of the leading keys", "[streaming][row_state]", float, double) {
    using T = TestType;
    RowState<T, 3> state;
    state.add(in(std::vector<T>{0, 1, -1, 3, 2}), 10);
    const Ref sum = std::exp(0.0L) + std::exp(1.0L) + std::exp(-1.0L) + std::exp(3.0L) + std::exp(2.0L);
    CHECK(std::abs(Ref(state.top_mass(1)) - std::exp(3.0L) / sum) <= 8 * unit_roundoff<T>);
    CHECK(std::abs(Ref(state.top_mass(3)) - (std::exp(3.0L) + std::exp(2.0L) + std::exp(1.0L)) / sum) <=
          8 * unit_roundoff<T>);
    CHECK(state.leading_key(0) == 13);
    CHECK(state.leading_key(2) == 11);
}

TEMPLATE_TEST_CASE("the list of leaders is the head of a stable sort, whatever its size",
                   "[streaming][row_state]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    const auto meet = [&]<Index K>(std::integral_constant<Index, K>) {
        SplitMix64 random = generator(seed, K, 91);
        for (int repetition = 0; repetition < 150; ++repetition) {
            const Index n = 1 + random.below(400),
                        values = 1 + random.below(repetition % 3 == 0 ? 6 : 1'000'000);
            std::vector<T> z(static_cast<std::size_t>(n));
            for (T& x : z)
                x = random.below(9) == 0 ? -std::numeric_limits<T>::infinity()
                                         : static_cast<T>(random.below(values));
            const auto cut = static_cast<std::size_t>(random.below(n + 1));
            RowState<T, K> state;
            state.add(in(z).first(cut), 5);
            state.add(in(z).subspan(cut), 5 + static_cast<Index>(cut));
            std::vector<Index> order;
            for (Index i = 0; i < n; ++i)
                if (z[static_cast<std::size_t>(i)] >= 0) order.push_back(i);
            std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
                return z[static_cast<std::size_t>(a)] > z[static_cast<std::size_t>(b)];
            });
            const Where where{"random", z.size(), 1, seed, scalar_name<T>(), "list"};
            worst.meet(state.leaders().size() == std::min(K, static_cast<Index>(order.size())), where);
            for (Index i = 0; i < state.leaders().size(); ++i)
                worst.meet(state.leading_key(i) == 5 + order[static_cast<std::size_t>(i)], where);
        }
    };
    meet(std::integral_constant<Index, 2>());
    meet(std::integral_constant<Index, 5>());
    meet(std::integral_constant<Index, 16>());
    meet(std::integral_constant<Index, 40>());
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("leaders are found in a piece of a million keys, in the order of their logits too",
                   "[streaming][row_state]", float, double) {
    using T = TestType;
    constexpr Index n = (Index(1) << 20) + 77;
    std::vector<T> z(static_cast<std::size_t>(n), T(0));
    for (Index i = 0; i < 6; ++i) z[static_cast<std::size_t>(n - 1 - i * 200'000)] = T(1) + static_cast<T>(i);
    RowState<T, 8> state;
    state.add(in(z), 3);
    for (Index i = 0; i < 6; ++i) CHECK(state.leading_key(i) == 3 + n - 1 - (5 - i) * 200'000);
    CHECK(state.leading_key(6) == 3);
    CHECK(state.leading_key(7) == 4);
    // Every key is larger than those before it: all of them are candidates when the list fills from the front.
    for (Index i = 0; i < n; ++i) z[static_cast<std::size_t>(i)] = static_cast<T>(i);
    RowState<T, 8> rising;
    rising.add(in(z), 0);
    for (Index i = 0; i < 8; ++i) CHECK(rising.leading_key(i) == n - 1 - i);
}
