// What does the `apply` of each normaliser cost beside softmax? Figures in ns per element.
#include "support/entmax_check.hpp"
#include "support/softmax_check.hpp"

#include <attnscope/normalizer/pointwise_functions.hpp>

#include <cstring>
#include <numeric>

namespace {

using namespace bench;
using namespace attnscope;

constexpr long double minus_infinity = -std::numeric_limits<long double>::infinity();

struct Column {
    std::string name;
    std::shared_ptr<const Matrix<float>> z;
    std::shared_ptr<Matrix<float>> p;
};

long double largest(const Wide& z) { return *std::max_element(z.begin(), z.end()); }
Index visible(const Wide& z) {
    return std::count_if(z.begin(), z.end(), [](long double x) { return x > minus_infinity; });
}

/// F(z)/(extra + sum F(z)) with F = 0 at masked keys.
template <class F>
Wide divided(Wide z, F&& f, long double extra = 0) {
    long double sum = extra;
    for (long double& x : z) sum += x = x == minus_infinity ? 0 : f(x);
    for (long double& x : z) x /= sum;
    return z;
}
Wide softmax(const Wide& z, long double beta = 1) {
    return divided(z, [=, m = largest(z)](long double x) { return std::exp(beta * (x - m)); });
}
long double entropy(const Wide& p) {
    return std::accumulate(p.begin(), p.end(), 0.0L,
                           [](long double sum, long double x) { return x > 0 ? sum - x * std::log(x) : sum; });
}

/// Adds a normaliser whose weights `check(z, p, who)` verifies, row by row.
template <class N, class Check>
void add_checked(const Column& at, const std::string& name, N normalizer, Check check) {
    const auto z = at.z;
    const auto p = at.p;
    add(
        name, at.name, Work{static_cast<double>(z->size())},
        [=] {
            for (Index i = 0; i < z->rows(); ++i)
                normalizer.template apply<float>(row_in(*z, i), row_out(*p, i));
        },
        [=](const std::string& who) {
            for (Index i = 0; i < z->rows(); ++i) check(row_in(*z, i), row_in(*p, i), who);
        });
}
/// The same with the formula, `weights(z)` in long double. Weights may be off by 1e-5 of themselves.
template <class N, class Weights>
void add_formula(const Column& at, const std::string& name, N normalizer, Weights weights) {
    add_checked(at, name, normalizer, [=](RowIn<float> z, RowIn<float> p, const std::string& who) {
        const Wide expected = weights(widened(z));
        for (std::size_t i = 0; i < z.size(); ++i)
            verify_close(p[i], expected[i], 1e-5L, std::numeric_limits<float>::min(), who, "a weight");
    });
}
void add_entmax(const Column& at, const std::string& name, double alpha) {
    add_checked(at, name, Entmax(alpha), [=](RowIn<float> z, RowIn<float> p, const std::string& who) {
        verify_entmax(z, p, alpha, 64, who);
    });
}
/// Softmax cut to some keys: `right(kept, smallest)` judges the softmax mass of those and of the lightest.
template <class Choice, class Right>
void add_choice(const Column& at, const std::string& name, Choice choice, Right right) {
    const auto check = [=](RowIn<float> z, RowIn<float> p, const std::string& who) {
        const Wide whole = softmax(widened(z));
        long double kept = 0, least = 1, dropped = 0;
        Index count = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (p[i] > 0) {
                kept += whole[i];
                least = std::min(least, whole[i]);
                ++count;
            } else {
                dropped = std::max(dropped, whole[i]);
            }
        verify(dropped <= least * (1 + 1e-5L), who, "a dropped key is heavier than a kept one");
        verify(right(count, kept, least), who, "the number of kept keys");
        for (std::size_t i = 0; i < z.size(); ++i)
            if (p[i] > 0) verify_close(p[i], whole[i] / kept, 1e-5L, 0, who, "a weight");
    };
    add_checked(at, name, Softmax() | choice, check);
}

void add_column(const Column& at) {
    add_formula(at, "softmax", Softmax(), [](const Wide& z) { return softmax(z); });
    add(
        "copy", at.name, Work{static_cast<double>(at.z->size())},
        [=] {
            std::memcpy(at.p->data(), at.z->data(), static_cast<std::size_t>(at.z->size()) * sizeof(float));
        },
        [=](const std::string& who) { verify(*at.p == *at.z, who, "the copy differs"); });

    add_formula(at, "ssmax", ScalableSoftmax(0.43), [](const Wide& z) {
        return softmax(z, 0.43L * std::log(static_cast<long double>(visible(z))));
    });
    add_formula(at, "logn", LogLengthSoftmax::trained_at(512), [](const Wide& z) {
        return softmax(z, std::log(static_cast<long double>(visible(z))) / std::log(512.0L));
    });
    add_formula(at, "sink", SinkSoftmax(1), [](const Wide& z) {
        return divided(
            z, [](long double x) { return std::exp(x); }, 1);
    });
    add_formula(at, "sigmoid", SigmoidAttention(), [](const Wide& z) {
        const auto n = static_cast<long double>(visible(z));
        Wide result = z;
        for (long double& x : result) x = 1 / (1 + std::exp(-x) * n);
        return result;
    });
    add_formula(at, "softpick", Softpick(), [](const Wide& z) {
        long double sum = 1e-8L;
        for (const long double x : z)
            if (x > minus_infinity) sum += std::abs(std::expm1(x));
        Wide result = z;
        for (long double& x : result) x = std::max(std::expm1(x), 0.0L) / sum;
        return result;
    });
    add_formula(at, "softcap|softmax", softcap(50) | Softmax(), [](Wide z) {
        for (long double& x : z)
            if (x > minus_infinity) x = 50 * std::tanh(x / 50);
        return softmax(z);
    });
    add_formula(at, "stablemax", PointwiseNormalizer<StableExponential>(), [](const Wide& z) {
        return divided(z, [](long double x) { return x >= 0 ? x + 1 : 1 / (1 - x); });
    });
    add_formula(at, "softplus", PointwiseNormalizer<Softplus>(), [](const Wide& z) {
        return divided(z, [](long double x) { return std::log1p(std::exp(x)); });
    });
    for (const int k : {1, 2})
        add_formula(at, "relu^" + std::to_string(k), PointwiseNormalizer<ReluPower>(ReluPower(k)),
                    [=](const Wide& row) {
                        return divided(row, [=](long double x) { return std::pow(std::max(x, 0.0L), k); });
                    });
    add_formula(at, "self-adjusted", SelfAdjustedSoftmax(), [](const Wide& z) {
        long double low = 0, high = 0;
        for (const long double x : z)
            if (x > minus_infinity) low = std::min(low, x), high = std::max(high, x);
        Wide result = softmax(z);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (result[i] > 0) result[i] *= (z[i] - low) / (high - low);
        return result;
    });
    add_formula(at, "adaptive", AdaptiveSoftmax(), [](const Wide& z) {
        const long double h = entropy(softmax(z));
        const long double beta = (((-0.037L * h + 0.481L) * h - 2.3L) * h + 4.917L) * h - 1.791L;
        return softmax(z, h > 0.5L ? std::max(1.0L, beta) : 1);
    });
    // beta and weights have to fit each other, and the entropy the target.
    const EntropyTargetSoftmax target(3);
    add_checked(at, "entropy target", target,
                [=](RowIn<float> row, RowIn<float> weights, const std::string& who) {
                    const Wide expected = softmax(widened(row), target.row_inverse_temperature<float>(row));
                    verify_close(entropy(expected), 3, 1e-6L, 0, who, "the entropy");
                    for (std::size_t i = 0; i < row.size(); ++i)
                        verify_close(weights[i], expected[i], 2e-5L, std::numeric_limits<float>::min(), who,
                                     "a weight");
                });
    add_entmax(at, "sparsemax", 2);
    add_entmax(at, "1.5-entmax", 1.5);
    add_entmax(at, "1.33-entmax", 1.33);
    add_entmax(at, "3-entmax", 3);
    add_choice(at, "softmax|top-k(64)", top_k(64),
               [](Index count, long double, long double) { return count == 64; });
    add_choice(at, "softmax|top-p(0.9)", top_p(0.9), [](Index, long double kept, long double least) {
        return kept >= 0.9L - 1e-6L && kept - least <= 0.9L + 1e-6L;
    });
}

} // namespace

int main(int argc, char** argv) {
    std::vector<std::string> columns;
    for (const Index length : {128, 1024, 16384, 1048576})
        for (const bool masked : {false, true}) {
            const Index rows = std::max(Index(1), elements / length);
            Column column;
            column.name = (length >> 20 ? std::to_string(length >> 20) + "M" : std::to_string(length)) +
                          (masked ? " masked" : "");
            column.z = std::make_shared<const Matrix<float>>(logits<float>(rows, length, masked, 1));
            column.p = std::make_shared<Matrix<float>>(Matrix<float>::Zero(rows, length));
            columns.push_back(column.name);
            add_column(column);
        }
    return run(argc, argv,
               "Rows of L Gaussian logits (deviation 1) in float, one key in 7 masked or none: ns per element, "
               "median, one thread",
               columns, Yardstick::first_row);
}
