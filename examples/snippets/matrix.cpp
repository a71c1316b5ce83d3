// Statistics of every row of a matrix of logits at once.
#include <attnscope/attnscope.hpp>
#include <attnscope/streaming/threads.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(7);
    const Eigen::MatrixXf z = Eigen::MatrixXf::NullaryExpr(64, 128, [&] { return float(2 * random.normal()); });
    const auto rows = attnscope::matrix_statistics(z); // 64 queries, 128 keys
    Eigen::Index sharpest;
    const double weight = rows.max_weight.maxCoeff(&sharpest);
    std::printf("mean entropy %.3f nats of at most %.3f\n", rows.entropy_nats.mean(), std::log(128.0));
    const auto& row = rows.rows[std::size_t(sharpest)]; // every other figure of a row
    std::printf("query %td puts %.3f on key %td, whose logit is %.2f above the next\n", sharpest, weight,
                row.argmax, row.logit_gap());
    const auto colder = attnscope::matrix_statistics(z, 0.5, attnscope::Threads{2}); // T = 1/2, two threads
    std::printf("at temperature 1/2 its entropy falls from %.3f to %.3f nats\n", rows.entropy_nats[sharpest],
                colder.entropy_nats[sharpest]);
}
