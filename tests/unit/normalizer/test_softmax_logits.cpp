// The logits that softmax sees behind softcaps and temperatures, and that of a sink among them.
#include <attnscope/runtime/registry.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <limits>
#include <vector>

using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const std::vector<double> logits = {0.5, -3, 7, -infinity, 2, 7};

/// The weights are those of softmax at `expected`, beside a sink of logit b those of its keys.
template <class N>
void check(const N& normalizer, const std::vector<double>& expected, double b, double expected_b) {
    std::vector<double> seen(logits.size());
    softmax_logits(normalizer, RowIn<double>(logits), RowOut<double>(seen));
    for (std::size_t i = 0; i < seen.size(); ++i)
        CHECK((seen[i] == expected[i] || std::abs(seen[i] - expected[i]) <= 1e-15 * std::abs(expected[i])));
    CHECK(softmax_sink_logit(normalizer, b) == expected_b);
    const auto close = [](const auto& found, const auto& right) {
        for (std::size_t i = 0; i < logits.size(); ++i) {
            const auto at = static_cast<Index>(i);
            CHECK(std::abs(found[at] - right[at]) <= 4e-14 * right[at]);
        }
    };
    close(weights(normalizer, logits), weights(Softmax(), seen));
    seen.push_back(expected_b);
    close(weights(with_sink(normalizer, b), logits), weights(Softmax(), seen));
    std::vector<double> in_place = logits;
    softmax_logits(normalizer, RowIn<double>(in_place), RowOut<double>(in_place));
    seen.pop_back();
    CHECK(in_place == seen);
}

std::vector<double> mapped(double divisor, double cap, double then) {
    std::vector<double> result;
    for (const double z : logits)
        result.push_back((z == -infinity ? z : cap * std::tanh(z / divisor / cap)) / then);
    return result;
}

} // namespace

TEST_CASE("softmax_logits: softmax of them has the weights, behind every front",
          "[normalizer][softcap][sink]") {
    std::vector<double> halves = logits;
    for (double& z : halves) z /= 2;
    check(Softmax(), logits, 1.5, 1.5);
    check(Softmax(2), halves, 1.5, 0.75);
    check(temperature(2) | Softmax(), halves, 1.5, 0.75);
    check(softcap(4) | Softmax(), mapped(1, 4, 1), 6, 6); // the sink is not capped
    check(softcap(4) | (temperature(0.5) | Softmax(2)), mapped(1, 4, 1), -3, -3);
    check(temperature(8) | (softcap(0.25) | Softmax(0.5)), mapped(8, 0.25, 0.5), 2, 0.5);
    check(AnyNormalizer(Softmax(2)), halves, 1.5, 0.75);
    check(make_normalizer("softmax"), logits, 1.5, 1.5);
    check(make_normalizer("softcap:4|softmax"), mapped(1, 4, 1), 6, 6);
    check(make_normalizer("temperature:8|softcap:0.25|temperature:0.5|softmax"), mapped(8, 0.25, 0.5), 2, 0.5);
    check(temperature(2) | make_normalizer("softcap:4|softmax"), mapped(2, 4, 1), 6, 3);
}

TEST_CASE("softmax_logits: what is no softmax behind softcaps and temperatures has none",
          "[normalizer][softcap]") {
    std::vector<double> out(logits.size());
    for (const char* name : {"sparsemax", "sink:1", "softcap:4|entmax:1.5", "softmax|topk:2", "ssmax"}) {
        const AnyNormalizer normalizer = make_normalizer(name);
        CHECK_FALSE(normalizer.takes_sink());
        CHECK_THROWS_AS(normalizer.softmax_logits(logits, out), invalid_argument);
        CHECK_THROWS_AS(normalizer.softmax_sink_logit(1), invalid_argument);
    }
    std::vector<double> nan = {std::nan(""), infinity, -infinity}, seen(3);
    softmax_logits(softcap(2) | Softmax(), RowIn<double>(nan), RowOut<double>(seen));
    CHECK(std::isnan(seen[0]));
    CHECK(seen[1] == 2);
    CHECK(seen[2] == -infinity);
    softmax_logits(temperature(2) | Softmax(), RowIn<double>(nan), RowOut<double>(seen));
    CHECK(std::isnan(seen[0]));
    CHECK(seen[1] == infinity);
    CHECK(seen[2] == -infinity);
}
