// Renyi entropies and leading masses of any order, from pieces and from scans, against long double.
#include <attnscope/attnscope.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/catch.hpp>

namespace {

using namespace attnscope;
using Wide = long double;

/// By the definition, from weights in long double, largest terms last.
template <class T>
Wide expected_entropy(const std::vector<T>& z, double order) {
    Wide top = -std::numeric_limits<Wide>::infinity(), sum = 0;
    for (const T x : z) top = std::max(top, Wide(x));
    std::vector<Wide> p;
    for (const T x : z)
        if (x > -std::numeric_limits<T>::infinity()) p.push_back(std::exp(Wide(x) - top));
    std::sort(p.begin(), p.end());
    Wide rest = 0; // all but the largest
    for (std::size_t i = 0; i + 1 < p.size(); ++i) rest += p[i];
    sum = 1 + rest;
    if (order == 0) return std::log(Wide(p.size()));
    if (std::isinf(order)) return std::log1p(rest);
    Wide power = 0, shannon = 0;
    for (std::size_t i = 0; i + 1 < p.size(); ++i) {
        power += std::pow(p[i], Wide(order));
        if (p[i] > 0) shannon -= p[i] * std::log(p[i]);
    }
    if (order == 1) return std::log1p(rest) + shannon / sum;
    return (Wide(order) * std::log1p(rest) - std::log1p(power)) / (Wide(order) - 1);
}

const std::vector<double> orders = {
    0, 0.3, 0.5, 0.75, 0.999, 1, 1.001, 1.4, 1.5, 2, 3.7, 20, std::numeric_limits<double>::infinity()};

} // namespace

TEMPLATE_TEST_CASE("Renyi entropies of any order, from pieces in any order", "[streaming][renyi]", float,
                   double) {
    using T = TestType;
    SplitMix64 random(11);
    for (const double spread : {0.5, 3.0, 30.0}) {
        std::vector<T> z(200);
        for (T& x : z) x = static_cast<T>(spread * random.normal());
        z[7] = -std::numeric_limits<T>::infinity();
        for (const double order : orders) {
            INFO("order " << order << ", spread " << spread);
            RenyiState<T> whole(order), pieces(order), backwards(order);
            whole.add(RowIn<T>(z));
            for (std::size_t at = 0; at < z.size(); at += 17)
                pieces.add(RowIn<T>(z).subspan(at, std::min<std::size_t>(17, z.size() - at)));
            for (std::size_t i = z.size(); i-- > 0;) {
                RenyiState<T> one(order);
                one.add(RowIn<T>(z).subspan(i, 1));
                backwards.merge(one);
            }
            // Logits are exact; 200 terms in double, twice an exponential of arguments up to 200 order.
            const Wide right = expected_entropy(z, order);
            // Of the formula in long double near order 1: its own quotient by order - 1.
            const double error = 1e-13 * (1 + double(right)) * (1 + spread * std::min(order, 30.0)) +
                                 (std::abs(order - 1) < 0.01 ? 1e-14 : 0);
            CHECK(std::abs(double(whole.entropy_nats() - right)) <= error);
            CHECK(std::abs(double(pieces.entropy_nats() - right)) <= error);
            CHECK(std::abs(double(backwards.entropy_nats() - right)) <= error);
            CHECK(std::abs(whole.entropy_nats() - renyi_entropy_nats(z, order)) <= error);
            CHECK(whole.hill_number() == std::exp(whole.entropy_nats()));
        }
    }
    // A sharp row keeps the digits of its small entropy.
    const std::vector<T> sharp = {0, -60, -61};
    for (const double order : {0.75, 1.0, 1.25, 2.0}) {
        RenyiState<T> state(order);
        state.add(RowIn<T>(sharp));
        const Wide right = expected_entropy(sharp, order);
        INFO("order " << order);
        CHECK(std::abs(double(state.entropy_nats() / right - 1)) <= 1e-12);
    }
}

TEST_CASE("special rows of a Renyi entropy", "[streaming][renyi]") {
    constexpr double infinity = std::numeric_limits<double>::infinity(),
                     nan = std::numeric_limits<double>::quiet_NaN();
    RenyiState<double> state(1.3);
    CHECK(state.status() == RowStatus::empty);
    CHECK(std::isnan(state.entropy_nats()));
    state.add(std::vector<double>{-infinity, -infinity});
    CHECK(state.status() == RowStatus::empty);
    state.add(std::vector<double>{2});
    CHECK(state.entropy_nats() == 0);
    state.add(std::vector<double>{infinity});
    CHECK(state.status() == RowStatus::infinite);
    state.add(std::vector<double>{nan, 0});
    CHECK(state.status() == RowStatus::nan);
    CHECK_THROWS_AS(RenyiState<double>(-1), invalid_argument);
    CHECK_THROWS_AS(RenyiState<double>(nan), invalid_argument);
    CHECK_THROWS_AS(state.merge(RenyiState<double>(2)), invalid_argument);
    static_assert(std::is_trivially_copyable_v<RenyiState<float>>);
}

TEST_CASE("scans of Renyi entropies and leading masses are those of the rows", "[streaming][renyi]") {
    SplitMix64 random(3);
    const Matrix<double> q = Matrix<double>::NullaryExpr(40, 5, [&] { return 2 * random.normal(); }),
                         k = Matrix<double>::NullaryExpr(50, 5, [&] { return 2 * random.normal(); });
    const HeadView<double> head(q, k);
    const Mask mask = Mask::causal(-1); // query 0 sees nothing
    const std::vector<Index> counts = {0, 1, 3, 3, 12, 60};
    const TileOptions options{.temperature = 0.5};
    const auto renyi = scan_renyi_entropy(head, 1.7, mask, options, Threads(2));
    const auto top = scan_top_mass(head, counts, mask, options);
    CHECK(top.mass.rows() == 40);
    CHECK(std::isnan(renyi.entropy_nats[0]));
    CHECK(std::isnan(top.mass(0, 1)));
    for (Index i = 1; i < 40; ++i) {
        std::vector<double> z(50);
        logits_of<double>(head, mask, i, RowOut<double>(z));
        CHECK(renyi.entropy_nats[i] ==
              Catch::Approx(renyi_entropy_nats(z, 1.7, 0.5)).epsilon(1e-11).margin(1e-14));
        Eigen::ArrayXd p = weights(Softmax(0.5), Eigen::Map<const Eigen::ArrayXd>(z.data(), 50).eval());
        std::sort(p.begin(), p.end(), std::greater<>());
        for (std::size_t c = 0; c < counts.size(); ++c)
            CHECK(std::abs(top.mass(i, Index(c)) - p.head(std::min<Index>(50, counts[c])).sum()) <= 1e-13);
    }
    CHECK_THROWS_AS(scan_top_mass(head, {3, 1}), invalid_argument);
    CHECK(scan_top_mass(head, {10}).mass.cols() == 1);
    CHECK_THROWS_AS(scan_renyi_entropy(head, -1), invalid_argument);
}

TEST_CASE("divergences of two heads at a temperature", "[streaming][divergence]") {
    SplitMix64 random(5);
    const auto fill = [&](Index rows) {
        return Matrix<float>::NullaryExpr(rows, 4, [&] { return float(random.normal()); }).eval();
    };
    const Matrix<float> q = fill(20), k = fill(30), moved = k + 0.1F * fill(30);
    const HeadView<float> a(q, k), b(q, moved);
    const auto bias = [](Index query, Index key) { return 0.1 * double(key - query); };
    const auto found = scan_divergence(a, b, Mask::causal(), {.temperature = 0.3, .bias = bias});
    for (Index i = 0; i < 20; ++i) {
        std::vector<float> z(30), y(30);
        logits_of<float>(a, Mask::causal(), i, RowOut<float>(z));
        logits_of<float>(b, Mask::causal(), i, RowOut<float>(y));
        for (Index j = 0; j < 30; ++j)
            z[std::size_t(j)] += float(bias(i, j)), y[std::size_t(j)] += float(bias(i, j));
        const Divergence right = row_divergence(z, y, 0.3);
        // Logits of order 1 in float, from another order of the sum: 1e-6 of the differences.
        CHECK(found.rows[std::size_t(i)].forward == Catch::Approx(right.forward).epsilon(1e-4).margin(1e-11));
        CHECK(found.rows[std::size_t(i)].logit_difference ==
              Catch::Approx(right.logit_difference).margin(1e-5));
    }
    CHECK_THROWS_AS(scan_divergence(a, b, {}, {.temperature = 0}), invalid_argument);
    CHECK(scan_divergence(a, b).rows[19].forward ==
          scan_divergence(a, b, {}, {.temperature = 1}).rows[19].forward);
}

TEST_CASE("row statistics at the temperature of a softmax", "[row]") {
    const std::vector<double> z = {1, 0.5, -2};
    const auto by_softmax = row_statistics(z, Softmax(0.5)), by_number = row_statistics(z, 0.5);
    CHECK(by_softmax.entropy_nats() == by_number.entropy_nats());
    CHECK(by_softmax.temperature == 0.5);
    CHECK(row_statistics<double>(RowIn<double>(z), Softmax(0.5)).r == by_number.r);
}
