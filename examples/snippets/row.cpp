// Weights and entropy of a row.
#include <attnscope/attnscope.hpp>
#include <cstdio>
#include <limits>
#include <vector>

int main() {
    const double masked = -std::numeric_limits<double>::infinity();
    const std::vector<double> z = {2.0, 0.5, 1.0, masked, -1.0}; // logits of one query, a key it may not see
    const auto p = attnscope::weights(attnscope::Softmax{}, z);
    std::printf("weights");
    for (const double weight : p) std::printf(" %.4f", weight);
    const auto row = attnscope::row_statistics(z);
    std::printf("\nentropy %.4f nats of at most %.4f\n", row.entropy_nats(), std::log(double(row.visible)));
    std::printf("as concentrated as %.2f equal keys of %td\n", row.participation_ratio(), row.visible);
    const auto colder = attnscope::row_statistics(z, 0.5); // the same at temperature 1/2
    std::printf("largest weight %.4f, at temperature 1/2 %.4f\n", row.max_weight(), colder.max_weight());
}
