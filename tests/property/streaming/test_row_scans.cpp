// What a scan of whole rows gives, and what is derived from a row's state: against the dense core and long
// double.
#include <attnscope/concentration/critical_temperature.hpp>
#include <attnscope/concentration/hill.hpp>
#include <attnscope/normalizer/sigmoid_attention.hpp>
#include <attnscope/streaming/divergence_scan.hpp>
#include <attnscope/streaming/jacobian_scan.hpp>
#include <attnscope/streaming/selection_scan.hpp>
#include <attnscope/streaming/threads.hpp>
#include <attnscope/streaming/value_state.hpp>
#include <attnscope/streaming/weight_histogram.hpp>
#include <support/masked_heads.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::ProductTiles;
using attnscope::RowStatus;
using attnscope::Softmax;
using attnscope::Threads;
using attnscope::TileOut;

namespace {

template <class T>
constexpr T minus_infinity = -std::numeric_limits<T>::infinity();

/// Logits of a matrix as a source.
template <class T>
auto given(const Matrix<T>& z) {
    return
        [&z](Index query, Index key, TileOut<T> tile) { tile = z.block(query, key, tile.rows(), tile.cols()); };
}

/// A row of the matrix under a mask.
template <class T>
std::vector<T> masked_row(const Matrix<T>& z, const Mask& mask, Index query) {
    std::vector<T> row(static_cast<std::size_t>(z.cols()), minus_infinity<T>);
    mask.visible(query, z.cols()).for_each([&](Index key) {
        row[static_cast<std::size_t>(key)] = z(query, key);
    });
    return row;
}

RefRow exact_weights(const RefRow& z) {
    const Ref m = *std::max_element(z.begin(), z.end());
    RefRow p;
    Ref sum = 0;
    for (const Ref x : z) p.push_back(std::exp(x - m)), sum += p.back();
    for (Ref& x : p) x /= sum;
    return p;
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

} // namespace

TEMPLATE_TEST_CASE("whole rows of logits are handed out once each", "[streaming][row_scan]", float, double) {
    using T = TestType;
    SplitMix64 random = generator(test_seed(), 1);
    bool all_right = true;
    for (const auto& shape : {std::pair<Index, Index>{1, 1}, {40, 40}, {7, 70}, {9, 5}, {0, 3}}) {
        const Index queries = shape.first, keys = shape.second;
        const Matrix<T> z = normal<T>(random, queries, keys, 2);
        for (const NamedMask& named : masks(queries, keys))
            for (const Index tile : {0, 1, 3, 1000})
                for (const Index threads : {1, 3}) {
                    std::vector<std::vector<T>> seen(static_cast<std::size_t>(queries));
                    std::vector<int> visits(static_cast<std::size_t>(queries));
                    const auto whole = attnscope::scan_rows<T>(
                        queries, keys, given(z),
                        [&](Index query, Index first, std::span<T> row) {
                            auto& copy = seen[static_cast<std::size_t>(query)];
                            copy.assign(static_cast<std::size_t>(keys), minus_infinity<T>);
                            std::copy(row.begin(), row.end(), copy.begin() + first);
                            ++visits[static_cast<std::size_t>(query)];
                            std::fill(row.begin(), row.end(), T(99)); // it may
                        },
                        named.mask, {.query_tile = tile}, Threads(threads));
                    all_right = all_right && !whole.cancelled && whole.done == queries && whole.all == queries;
                    for (Index i = 0; i < queries; ++i)
                        all_right = all_right && visits[static_cast<std::size_t>(i)] == 1 &&
                                    seen[static_cast<std::size_t>(i)] == masked_row(z, named.mask, i);
                }
    }
    CHECK(all_right);

    const Matrix<T> z = normal<T>(random, 20, 30, 2);
    std::vector<Index> order;
    const std::vector<Index> chosen = {17, 3, 4, 5, 0, 19, 3};
    attnscope::scan_rows_of<T>(
        std::span<const Index>(chosen), 30, given(z),
        [&](Index query, Index first, std::span<T> row) {
            order.push_back(query);
            all_right = all_right && first == 0 && row.size() == static_cast<std::size_t>(query + 11) &&
                        std::equal(row.begin(), row.end(), z.row(query).data());
        },
        Mask::causal(10));
    CHECK(all_right);
    CHECK(order == chosen);
    Index calls = 0;
    const auto part =
        attnscope::scan_rows<T>(20, 30, given(z), [](Index, Index, std::span<T>) {}, {},
                                {.query_tile = 4, .progress = [&](Index, Index) { return ++calls < 2; }});
    CHECK(part.cancelled);
    CHECK(calls == 2);
    const std::vector<Index> wrong = {-1};
    CHECK_THROWS_AS(attnscope::scan_rows_of<T>(std::span<const Index>(wrong), 30, given(z),
                                               [](Index, Index, std::span<T>) {}),
                    attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("norms of all Jacobians are those of the dense rows", "[streaming][row_scan]", float,
                   double) {
    using T = TestType;
    SplitMix64 random = generator(test_seed(), 2);
    const Index queries = 30, keys = 45;
    const Matrix<T> q = normal<T>(random, queries, 4, 2), k = normal<T>(random, keys, 4, 2);
    const HeadView<T> head(q, k);
    Matrix<T> z(queries, keys);
    const ProductTiles<T> product(head);
    product(0, 0, TileOut<T>(z.data(), queries, keys, Eigen::OuterStride<>(keys)));
    Worst worst;
    const auto meet = [&](const auto& normalizer) {
        for (const NamedMask& named : masks(queries, keys)) {
            const auto found = attnscope::scan_jacobian_norms(head, normalizer, named.mask, {}, Threads(2));
            REQUIRE(found.rows.size() == static_cast<std::size_t>(queries));
            for (Index i = 0; i < queries; ++i) {
                const std::vector<T> row = masked_row(z, named.mask, i);
                std::vector<T> p(row.size());
                normalizer.template apply<T>(in(row), out(p));
                const auto exact = attnscope::jacobian_norms<T>(normalizer, in(row), in(std::as_const(p)));
                const auto& norms = found.rows[static_cast<std::size_t>(i)];
                // The same numbers in other packets: sums of at most 45 terms, and a root of their sums.
                const auto close = [&](Ref a, Ref b) {
                    worst.meet(
                        std::abs(a - b), 200 * unit_roundoff<T> * std::abs(b),
                        {named.name, static_cast<std::size_t>(keys), 1, test_seed(), scalar_name<T>(), "norm"});
                };
                close(norms.spectral.value, exact.spectral.value);
                close(norms.frobenius, exact.frobenius);
                close(norms.max_entry, exact.max_entry);
                close(norms.one, exact.one);
            }
        }
    };
    meet(Softmax(0.7));
    meet(attnscope::SigmoidAttention());
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("divergence of rows against long double", "[streaming][divergence]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    for_each_row<T>(seed, lengths, 1, [&](const Where& where, const std::vector<T>& a) {
        if (visible_count(a) == 0) return;
        SplitMix64 random = generator(seed, a.size(), 5);
        for (const double step : {0.0, 1e-6, 1e-3, 0.5, 20.0}) {
            std::vector<T> b = a;
            for (T& x : b) x += static_cast<T>(step * random.normal());
            const auto found = attnscope::row_divergence<T>(in(a), in(std::as_const(b)));
            const RefRow p = exact_weights(widen(a)), q = exact_weights(widen(b));
            Ref tv = 0, forward = 0, backward = 0, apart = 0;
            const RefRow wide_a = widen(a), wide_b = widen(b);
            // Long double by the same identity in another form: p psi(log q - log p), psi from expm1 or a
            // series.
            const auto psi = [](Ref x) {
                if (std::abs(x) > 0.01L) return std::expm1(x) - x;
                Ref term = x * x / 2, sum = 0;
                for (int n = 3; n < 30; ++n) sum += term, term *= x / n;
                return sum;
            };
            const Ref ma = *std::max_element(wide_a.begin(), wide_a.end()),
                      mb = *std::max_element(wide_b.begin(), wide_b.end());
            Ref sa = 0, sb = 0;
            for (std::size_t i = 0; i < a.size(); ++i)
                sa += std::exp(wide_a[i] - ma), sb += std::exp(wide_b[i] - mb);
            Ref terms = 0;
            for (std::size_t i = 0; i < a.size(); ++i) {
                if (!(wide_a[i] > families::masked_logit)) continue;
                const Ref log_p = wide_a[i] - ma - std::log(sa), log_q = wide_b[i] - mb - std::log(sb),
                          x = log_q - log_p;
                tv += std::abs(p[i] - q[i]) / 2;
                forward += x > 1000 ? q[i] : p[i] * psi(x);
                backward += x < -1000 ? p[i] : q[i] * psi(-x);
                apart = std::max(apart, std::abs(wide_a[i] - wide_b[i]));
                terms = std::max(terms, std::abs(log_p) + std::abs(log_q));
            }
            // Logarithms of weights are off by a common shift (from the sums of the row, 1e-6 for float) and by
            // their own rounding in double. KL feels both in proportion to itself and to second order, TV to
            // first.
            const Ref u = unit_roundoff<double>;
            const Ref shift = std::is_same_v<T, float> ? Ref(2e-6) : 64 * u;
            const Ref rounding = 16 * u * (1 + terms);
            const Ref error = shift + rounding;
            worst.meet(std::abs(Ref(found.total_variation) - tv), error + 64 * u * tv, where);
            worst.meet(std::abs(Ref(found.forward) - forward),
                       error * (2 * tv + error) + 64 * u * forward + error * forward, where);
            worst.meet(std::abs(Ref(found.backward) - backward),
                       error * (2 * tv + error) + 64 * u * backward + error * backward, where);
            worst.meet(std::abs(Ref(found.logit_difference) - apart), u * apart, where);
            worst.meet(found.forward >= 0 && found.backward >= 0, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("divergence where keys are hidden, and of rows that are not normal",
                   "[streaming][divergence]", float, double) {
    using T = TestType;
    const auto of = [](std::vector<T> a, std::vector<T> b) {
        return attnscope::row_divergence<T>(in(std::as_const(a)), in(std::as_const(b)));
    };
    constexpr T inf = std::numeric_limits<T>::infinity();
    // q = (1, 0), p = (1/2, 1/2): TV 1/2, KL(q|p) = log 2, KL(p|q) = inf.
    const auto hidden = of({0, 0}, {0, -inf});
    CHECK(hidden.total_variation == Catch::Approx(0.5).epsilon(1e-12));
    CHECK(hidden.forward == std::numeric_limits<double>::infinity());
    CHECK(hidden.backward == Catch::Approx(std::log(2.0)).epsilon(1e-12));
    CHECK(hidden.logit_difference == 0);
    const auto other = of({0, -inf}, {0, 0});
    CHECK(other.forward == Catch::Approx(std::log(2.0)).epsilon(1e-12));
    CHECK(other.backward == std::numeric_limits<double>::infinity());
    const auto both = of({1, -inf, 2}, {1, -inf, 2});
    CHECK(both.forward == 0);
    CHECK(both.total_variation == 0);
    CHECK(of({0, 1}, {0, std::numeric_limits<T>::quiet_NaN()}).status == RowStatus::nan);
    CHECK(of({0, 1}, {0, inf}).status == RowStatus::infinite);
    CHECK(of({-inf}, {0}).status == RowStatus::empty);
    CHECK(std::isnan(of({-inf}, {0}).forward));
    CHECK_THROWS_AS(of({0}, {0, 1}), attnscope::invalid_argument);

    SplitMix64 random = generator(test_seed(), 3);
    const Matrix<T> q = normal<T>(random, 12, 4, 1), k = normal<T>(random, 20, 4, 1);
    const Matrix<T> rounded = (k.array() * 8).round() / 8;
    const HeadView<T> head(q, k), coarse(q, rounded);
    const Mask mask = Mask::causal_bottom_right(12, 20).with_prefix(3);
    const auto found = attnscope::scan_divergence(head, coarse, mask, {.query_tile = 5}, Threads(2));
    REQUIRE(found.rows.size() == 12);
    bool right = true;
    double largest = 0;
    for (Index i = 0; i < 12; ++i) {
        std::vector<T> a(20), b(20);
        attnscope::logits_of(head, mask, i, out(a));
        attnscope::logits_of(coarse, mask, i, out(b));
        const auto exact = attnscope::row_divergence<T>(in(std::as_const(a)), in(std::as_const(b)));
        const double error = 64 * static_cast<double>(unit_roundoff<T>);
        right =
            right && std::abs(found.rows[static_cast<std::size_t>(i)].forward - exact.forward) <= error &&
            std::abs(found.rows[static_cast<std::size_t>(i)].total_variation - exact.total_variation) <= error;
        largest = std::max(largest, exact.forward);
    }
    CHECK(right);
    CHECK(largest > 1e-5);
    CHECK_THROWS_AS(attnscope::scan_divergence(head, HeadView<T>(k, k)), attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("a histogram counts every pair by its weight", "[streaming][histogram]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 4);
    const Index queries = 25, keys = 60;
    Matrix<T> z = normal<T>(random, queries, keys, 8);
    z(3, 1) = std::numeric_limits<T>::quiet_NaN();
    z(4, 0) = std::numeric_limits<T>::infinity();
    z(5, 0) = minus_infinity<T>;
    z(6, 2) = T(-1000);
    for (const NamedMask& named : masks(queries, keys)) {
        const auto found =
            attnscope::scan_histogram<T>(queries, keys, given(z), named.mask, {.query_tile = 7}).histogram;
        CHECK(found ==
              attnscope::scan_histogram<T>(queries, keys, given(z), named.mask, {}, Threads(3)).histogram);
        attnscope::WeightHistogram expected;
        for (Index i = 0; i < queries; ++i) {
            const std::vector<T> row = masked_row(z, named.mask, i);
            Ref m = families::masked_logit, sum = 0;
            bool special = false;
            std::uint64_t visible = 0;
            for (const T x : row) {
                special = special || !(std::abs(Ref(x)) < 1e30L || x == minus_infinity<T>);
                visible += !(x == minus_infinity<T>);
                m = std::max(m, Ref(x));
            }
            if (special) {
                expected.left_out += visible;
                continue;
            }
            for (const T x : row)
                if (x != minus_infinity<T>) sum += std::exp(Ref(x) - m);
            for (const T x : row)
                if (x != minus_infinity<T>) {
                    const Ref bits = -std::log2(std::exp(Ref(x) - m) / sum);
                    ++expected.count[static_cast<std::size_t>(
                        std::clamp<Ref>(std::isfinite(bits) ? bits : 127, 0, 127))];
                    ++expected.pairs;
                }
        }
        CAPTURE(named.name);
        CHECK(found == expected);
    }
    attnscope::WeightHistogram flat;
    attnscope::add_to_histogram<T>(flat, in(std::vector<T>(7, T(2)))); // 1/7 lies in (1/8, 1/4]
    CHECK(flat.count[2] == 7);
    CHECK(flat.share_below(2) == 1);
    CHECK(flat.share_below(3) == 0);
    CHECK(std::isnan(attnscope::WeightHistogram().share_below(0)));
}

TEMPLATE_TEST_CASE("states of values are a monoid and keep small spreads", "[streaming][value_state]", float,
                   double) {
    using T = TestType;
    using A = attnscope::Accumulator<T>;
    const std::uint64_t seed = test_seed();
    Worst worst;
    for (const double offset : {0.0, 1e3}) {
        for (int repetition = 0; repetition < 60; ++repetition) {
            SplitMix64 random = generator(seed, static_cast<std::uint64_t>(repetition), 6);
            const Index n = 1 + random.below(50), d = 1 + random.below(20);
            Matrix<T> v = normal<T>(random, n, d, 1);
            v.array() += static_cast<T>(offset);
            std::vector<A> w;
            for (Index i = 0; i < n; ++i)
                w.push_back(i % 4 == 1 ? A(0) : static_cast<A>(std::exp(5 * random.normal())));
            Ref mass = 0, scatter = 0;
            RefRow mean(static_cast<std::size_t>(d));
            for (Index i = 0; i < n; ++i) mass += w[static_cast<std::size_t>(i)];
            if (!(mass > 0)) continue;
            for (Index i = 0; i < n; ++i)
                for (Index c = 0; c < d; ++c)
                    mean[static_cast<std::size_t>(c)] +=
                        Ref(w[static_cast<std::size_t>(i)]) / mass * Ref(v(i, c));
            for (Index i = 0; i < n; ++i)
                for (Index c = 0; c < d; ++c)
                    scatter += Ref(w[static_cast<std::size_t>(i)]) *
                               std::pow(Ref(v(i, c)) - mean[static_cast<std::size_t>(c)], 2);
            const Index cut = random.below(n + 1);
            std::vector<A> left_mean(static_cast<std::size_t>(d)), right_mean(static_cast<std::size_t>(d)),
                none(static_cast<std::size_t>(d));
            attnscope::ValueState<A> left{std::span<A>(left_mean)}, right{std::span<A>(right_mean)},
                empty{std::span<A>(none)};
            for (Index i = 0; i < n; ++i)
                (i < cut ? left : right)
                    .template add<T>(w[static_cast<std::size_t>(i)] / 2, MatrixView<T>(v).row(i));
            left.scale(2);
            right.scale(2);
            left.merge(empty);
            empty.merge(right);
            left.merge(empty);
            const Where where{offset > 0 ? "far away" : "normal",
                              static_cast<std::size_t>(n),
                              1,
                              seed,
                              scalar_name<T>(),
                              "values"};
            const Ref u = unit_roundoff<A>, steps = 8 * static_cast<Ref>(n + d + 4);
            const Ref reach = offset + 10;
            worst.meet(std::abs(Ref(left.mass()) - mass), u * steps * mass, where);
            for (Index c = 0; c < d; ++c)
                worst.meet(
                    std::abs(Ref(left.mean()[static_cast<std::size_t>(c)]) - mean[static_cast<std::size_t>(c)]),
                    u * steps * reach, where);
            // Every difference from a mean is off by the rounding of that mean.
            const Ref slip = u * steps * reach * std::sqrt(static_cast<Ref>(d));
            worst.meet(std::abs(Ref(left.variance()) - scatter / mass),
                       u * steps * scatter / mass + 2 * slip * std::sqrt(scatter / mass) + slip * slip, where);
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
    std::vector<A> mean(2), other(3);
    attnscope::ValueState<A> state{std::span<A>(mean)};
    CHECK(std::isnan(state.variance()));
    CHECK_THROWS_AS((state.template add<T>(A(1), in(std::vector<T>(3)))), attnscope::invalid_argument);
    CHECK_THROWS_AS(state.merge(attnscope::ValueState<A>{std::span<A>(other)}), attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("output and spread of the values of every row", "[streaming][value_state]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 7);
    const Index queries = 20, keys = 35;
    const Matrix<T> q = normal<T>(random, queries, 4, 3), k = normal<T>(random, keys, 4, 1),
                    v = normal<T>(random, keys, 5, 1);
    const HeadView<T> head(q, k, v);
    Worst worst;
    for (const NamedMask& named : masks(queries, keys)) {
        const auto found = attnscope::scan_value_moments(head, named.mask, {.query_tile = 6}, Threads(2));
        for (Index i = 0; i < queries; ++i) {
            std::vector<T> z(static_cast<std::size_t>(keys));
            attnscope::logits_of(head, named.mask, i, out(z));
            if (visible_count(z) == 0) {
                worst.meet(found.output.row(i).isZero() && std::isnan(found.variance[i]),
                           {named.name, z.size(), 1, seed, scalar_name<T>(), "empty"});
                continue;
            }
            const RefRow p = exact_weights(widen(z));
            std::vector<Ref> mean(5);
            for (Index key = 0; key < keys; ++key)
                for (Index c = 0; c < 5; ++c)
                    mean[static_cast<std::size_t>(c)] += p[static_cast<std::size_t>(key)] * v(key, c);
            Ref variance = 0, spread = 1;
            for (Index key = 0; key < keys; ++key)
                for (Index c = 0; c < 5; ++c)
                    variance += p[static_cast<std::size_t>(key)] *
                                std::pow(v(key, c) - mean[static_cast<std::size_t>(c)], 2);
            for (const T x : z)
                if (x > minus_infinity<T>) spread = std::max(spread, std::abs(Ref(x)));
            const Ref error = unit_roundoff<T> * (64 + 8 * spread); // of weights, whose logits are rounded
            const Where where{named.name, z.size(), 1, seed, scalar_name<T>(), "moments"};
            worst.meet(std::abs(Ref(found.variance[i]) - variance), error * (variance + 16 * error), where);
            for (Index c = 0; c < 5; ++c)
                worst.meet(std::abs(Ref(found.output(i, c)) - mean[static_cast<std::size_t>(c)]), 4 * error,
                           where);
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
    const Matrix<T> bare = Matrix<T>::Ones(2, 2);
    CHECK_THROWS_AS(attnscope::scan_value_moments(HeadView<T>(bare, bare)), attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("distance curves of every row of a head", "[streaming][selection]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    SplitMix64 random = generator(seed, 8);
    const Index queries = 20, keys = 35;
    Matrix<T> q = normal<T>(random, queries, 4, 2);
    const Matrix<T> k = normal<T>(random, keys, 4, 1), v = normal<T>(random, keys, 5, 1);
    q.row(3).setConstant(std::numeric_limits<T>::quiet_NaN());
    const HeadView<T> head(q, k, v);
    Worst worst;
    bool right = true;
    for (const NamedMask& named : masks(queries, keys))
        for (const Index n_max : {0, 3, 1000}) {
            std::vector<int> visits(static_cast<std::size_t>(queries));
            attnscope::scan_distance_curves(
                head, n_max,
                [&](Index query, std::span<const Index> order, const auto& curve) {
                    ++visits[static_cast<std::size_t>(query)];
                    std::vector<T> z(static_cast<std::size_t>(keys));
                    attnscope::logits_of(head, named.mask, query, out(z));
                    const std::size_t visible = query == 3 ? 0 : visible_count(z);
                    right = right && order.size() == visible &&
                            curve.cumulative.size() == std::min(visible, static_cast<std::size_t>(n_max));
                    if (visible == 0) return;
                    const RefRow p = exact_weights(widen(z));
                    RefRow s(5);
                    for (std::size_t count = 1; count <= curve.cumulative.size(); ++count) {
                        const auto chosen = static_cast<std::size_t>(order[count - 1]);
                        right =
                            right && (count == 1 || z[chosen] <= z[static_cast<std::size_t>(order[count - 2])]);
                        for (Index c = 0; c < 5; ++c)
                            s[static_cast<std::size_t>(c)] += p[chosen] * v(order[count - 1], c);
                        Ref distance = 0;
                        for (std::size_t i = count; i < order.size(); ++i) {
                            Ref square = 0;
                            for (Index c = 0; c < 5; ++c)
                                square += std::pow(p[static_cast<std::size_t>(order[i])] * v(order[i], c) -
                                                       s[static_cast<std::size_t>(c)],
                                                   2);
                            distance += std::sqrt(square);
                        }
                        // Weights carry the rounding of logits of up to 30, vectors are of length 5 at most.
                        worst.meet(std::abs(curve.cumulative[count - 1] - distance),
                                   Ref(1e-5) * distance + 200 * unit_roundoff<T> * static_cast<Ref>(visible),
                                   {named.name, visible, 1, seed, scalar_name<T>(), "curve"});
                    }
                },
                named.mask, {.query_tile = 7});
            right = right && std::all_of(visits.begin(), visits.end(), [](int n) { return n == 1; });
        }
    CHECK(right);
    ATTNSCOPE_CHECK_WORST(worst);
    const Matrix<T> bare = Matrix<T>::Ones(2, 2);
    const auto nothing = [](Index, std::span<const Index>, const auto&) {};
    CHECK_THROWS_AS(attnscope::scan_distance_curves(HeadView<T>(bare, bare), 1, nothing),
                    attnscope::invalid_argument);
    CHECK_THROWS_AS(attnscope::scan_distance_curves(head, -1, nothing), attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("ranked rows of chosen queries under another normaliser", "[streaming][selection]", float,
                   double) {
    using T = TestType;
    SplitMix64 random = generator(test_seed(), 9);
    const Index queries = 20, keys = 35;
    Matrix<T> q = normal<T>(random, queries, 4, 2);
    const Matrix<T> k = normal<T>(random, keys, 4, 1), v = normal<T>(random, keys, 5, 1);
    q.row(3).setConstant(std::numeric_limits<T>::quiet_NaN());
    const HeadView<T> head(q, k, v);
    const auto gram = attnscope::gram_matrix(MatrixView<T>(v));
    const std::vector<Index> chosen = {0, 3, 4, 11, 19};
    const attnscope::SigmoidAttention sigmoid(T(-1));
    bool right = true;
    for (const NamedMask& named : masks(queries, keys)) {
        INFO(named.name);
        std::vector<Index> visited;
        attnscope::scan_ranked_rows(
            chosen, head, gram, sigmoid,
            [&](const attnscope::RankedRow<T>& row) {
                visited.push_back(row.query);
                std::vector<T> z(static_cast<std::size_t>(keys)), p(z.size());
                attnscope::logits_of(head, named.mask, row.query, out(z));
                const bool normal = sigmoid.template apply<T>(in(z), out(p)) == RowStatus::normal;
                const std::size_t n = normal ? visible_count(z) : 0;
                right = right && row.keys.size() == n && row.order.size() == n && row.weights.size() == n &&
                        row.logits.size() == n && row.gram.rows() >= static_cast<Index>(n);
                if (n == 0 || !right) return;
                std::vector<char> met(n, 0);
                for (std::size_t i = 0; i < n; ++i) {
                    const Index key = row.keys[i];
                    const auto at = static_cast<std::size_t>(key),
                               place = static_cast<std::size_t>(row.order[i]);
                    // The same logits come from a product of another shape: a rounding of each of 4 terms.
                    const T error = 16 * std::numeric_limits<T>::epsilon() *
                                    (1 + q.row(row.query).norm() * k.row(key).norm());
                    right = right && (i == 0 || row.keys[i - 1] < key) &&
                            std::abs(row.logits[i] - z[at]) <= error &&
                            std::abs(row.weights[i] - p[at]) <= error && !std::exchange(met[place], 1) &&
                            (i == 0 ||
                             row.weights[place] <= row.weights[static_cast<std::size_t>(row.order[i - 1])]);
                    for (Index c = 0; c < 5; ++c)
                        right =
                            right && row.x.row(static_cast<Index>(i))[static_cast<std::size_t>(c)] == v(key, c);
                    for (std::size_t j = 0; j < n; ++j)
                        right = right && std::abs(row.gram(static_cast<Index>(i), static_cast<Index>(j)) -
                                                  gram(key, row.keys[j])) <= 1e-12;
                }
            },
            named.mask, {.query_tile = 3});
        right = right && visited == chosen;
        CHECK(right);
    }
    const auto nothing = [](const attnscope::RankedRow<T>&) {};
    const Matrix<T> bare = Matrix<T>::Ones(2, 2);
    CHECK_THROWS_AS(attnscope::scan_ranked_rows(chosen, HeadView<T>(bare, bare), gram, sigmoid, nothing),
                    attnscope::invalid_argument);
    const attnscope::Matrix<attnscope::Accumulator<T>> small = gram.topLeftCorner(keys - 1, keys - 1);
    CHECK_THROWS_AS(attnscope::scan_ranked_rows(chosen, head, small, sigmoid, nothing),
                    attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("Hill numbers from the sums of a row", "[streaming][hill]", float, double) {
    using T = TestType;
    Worst worst;
    for_each_row<T>(test_seed(), lengths, 1, [&](const Where& where, const std::vector<T>& z) {
        const auto row = attnscope::row_statistics<T>(in(z));
        for (const double order : {0.0, 1.0, 2.0, 3.0, std::numeric_limits<double>::infinity()}) {
            const double found = static_cast<double>(attnscope::hill_number(row, order));
            const double exact = std::exp(static_cast<double>(attnscope::renyi_entropy_nats<T>(in(z), order)));
            if (std::isnan(exact))
                worst.meet(same(found, exact), where);
            else
                worst.meet(std::abs(found - exact), 4e-6 * exact, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);
    CHECK_THROWS_AS(attnscope::hill_number(attnscope::RowStatistics<double>(), 1.5),
                    attnscope::invalid_argument);
}

TEMPLATE_TEST_CASE("the critical inverse temperature bounds the largest weight", "[concentration][critical]",
                   float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst holds, brackets;
    for_each_row<T>(seed, lengths, 1, [&](const Where& where, const std::vector<T>& z) {
        std::vector<double> sorted;
        for (const T x : z)
            if (x > minus_infinity<T>) sorted.push_back(static_cast<double>(x));
        if (sorted.empty()) return;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        const auto visible = static_cast<Index>(sorted.size());
        const auto whole = attnscope::critical_inverse_temperature(std::span<const double>(sorted), visible);
        brackets.meet(whole.value.lower == whole.value.upper, where);
        for (const std::size_t known : {std::size_t(1), std::size_t(2), std::size_t(8), sorted.size()}) {
            const auto part = attnscope::critical_inverse_temperature(
                std::span<const double>(sorted).first(std::min(known, sorted.size())), visible);
            brackets.meet(part.value.lower <= whole.value.lower && whole.value.upper <= part.value.upper,
                          where);
            for (const double beta : {0.1, 1.0, 10.0}) {
                Ref sum = 0;
                for (const double x : sorted) sum += std::exp(Ref(beta) * (Ref(x) - Ref(sorted[0])));
                const auto bounds = attnscope::critical_weight_bounds(part, visible, beta);
                const Ref u = unit_roundoff<double> * (16 + static_cast<Ref>(std::min<Index>(64, visible)) +
                                                       8 * std::log(Ref(visible)));
                holds.meet(Ref(bounds.lower) <= (1 + u) / sum, where);
                holds.meet((1 - u) / sum <= Ref(bounds.upper), where);
            }
        }
    });
    ATTNSCOPE_CHECK_WORST(holds);
    ATTNSCOPE_CHECK_WORST(brackets);

    // Attained from below by z_k = -log k (beta* = 1), at any beta; from above by ties. One percent less is
    // caught.
    std::vector<double> logs;
    for (int k = 1; k <= 40; ++k) logs.push_back(-std::log(static_cast<double>(k)));
    const auto critical = attnscope::critical_inverse_temperature(std::span<const double>(logs), 40);
    CHECK(critical.value.lower == Catch::Approx(1).epsilon(1e-14));
    for (const double beta : {0.5, 1.0, 3.0}) {
        double sum = 0;
        for (const double x : logs) sum += std::exp(beta * x);
        const double lower = attnscope::critical_weight_bounds(critical, 40, beta).lower;
        CHECK(lower == Catch::Approx(1 / sum).epsilon(1e-13));
        CHECK_FALSE(lower / 0.99 <= 1 / sum);
    }
    const std::vector<double> ties(30, 2.5);
    const auto tied = attnscope::critical_inverse_temperature(std::span<const double>(ties), 30);
    CHECK(tied.value.lower == std::numeric_limits<double>::infinity());
    CHECK(tied.rank == 30);
    const auto bounds = attnscope::critical_weight_bounds(tied, 30, 1.0);
    CHECK(bounds.upper == Catch::Approx(1.0 / 30).epsilon(1e-14));
    CHECK(bounds.lower == Catch::Approx(1.0 / 30).epsilon(1e-14));
    CHECK_FALSE(1.0 / 30 <= 0.99 * bounds.upper);
    // From above also by one key above equal ones, at any beta, with all others far below and not known: beta*
    // and k* of the lower end.
    for (const int rank : {2, 7, 30}) {
        std::vector<double> leading(static_cast<std::size_t>(rank), 2 - std::log(static_cast<double>(rank)));
        leading[0] = 2;
        leading.push_back(-700);
        const auto part = attnscope::critical_inverse_temperature(std::span<const double>(leading), 1000);
        CHECK(part.rank == rank);
        CHECK(part.value.lower == Catch::Approx(1).epsilon(1e-14));
        for (const double beta : {0.25, 1.0, 4.0}) {
            // Leading keys only: the unknown ones weigh less than 1000 e^{-175}.
            double sum = 0;
            for (const double x : leading) sum += std::exp(beta * (x - leading[0]));
            const double upper = attnscope::critical_weight_bounds(part, 1000, beta).upper;
            CHECK(upper == Catch::Approx(1 / sum).epsilon(1e-13));
            CHECK_FALSE(1 / sum <= 0.99 * upper);
        }
    }
    // Long rows: the integral in place of the sum costs little.
    const std::vector<double> pair = {0, -std::log(2.0)};
    const auto one = attnscope::critical_inverse_temperature<double>(in(pair), 2);
    CHECK(one.value.lower == 1);
    double harmonic = 0;
    for (int k = 1; k <= 100'000; ++k) harmonic += 1.0 / k;
    const double lower = attnscope::critical_weight_bounds(one, 100'000, 1.0).lower;
    CHECK(lower <= 1 / harmonic);
    CHECK(lower >= 0.999 / harmonic);
    CHECK(attnscope::critical_inverse_temperature(std::span<const double>(ties).first(1), 1).value.upper == 0);
    CHECK(std::isnan(attnscope::critical_inverse_temperature(std::span<const double>(), 0).value.lower));
    CHECK_THROWS_AS(attnscope::critical_inverse_temperature(std::span<const double>(ties), 3),
                    attnscope::invalid_argument);
    const std::vector<double> ascending = {0, 1};
    CHECK_THROWS_AS(attnscope::critical_inverse_temperature(std::span<const double>(ascending), 3),
                    attnscope::invalid_argument);
    CHECK_THROWS_AS(attnscope::critical_weight_bounds(one, 3, 0.0), attnscope::invalid_argument);
}
