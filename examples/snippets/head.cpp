// Output and weights of a head, and what every query's row looks like.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    const auto tokens = [&](attnscope::Index n, attnscope::Index d) {
        return attnscope::Matrix<float>::NullaryExpr(n, d, [&] { return float(random.normal()); }).eval();
    };
    const attnscope::Matrix<float> q = 2 * tokens(64, 16), k = tokens(64, 16), v = tokens(64, 16);
    const auto mask = attnscope::Mask::causal();

    const auto head = attnscope::attend(q, k, v, attnscope::Softmax{}, mask, {.weights = true});
    std::printf("output %td x %td, query 63 gives key 0 the weight %.4f\n", head.output.rows(),
                head.output.cols(), head.weights(63, 0));

    // The same rows without a matrix of weights: any length will do.
    const auto scan = attnscope::scan(q, k, mask);
    double mean = 0;
    for (const auto& row : scan.rows) mean += row.statistics().entropy_nats() / 64;
    const auto last = scan.rows[63].statistics();
    std::printf("mean entropy %.3f nats; query 63: largest weight %.3f, on key %td\n", mean, last.max_weight(),
                last.argmax);
}
