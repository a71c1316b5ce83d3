#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    Eigen::VectorXf z = Eigen::VectorXf::LinSpaced(1024, -8, 8); // one row of attention logits
    const auto p = attnscope::weights(attnscope::Softmax{}, z);
    const auto row = attnscope::row_statistics(z);
    const auto norms = attnscope::jacobian_norms(attnscope::Softmax{}, z);
    std::printf("largest weight %.4f, entropy %.4f nats\n", p.maxCoeff(), row.entropy_nats());
    std::printf("as concentrated as %.1f equal keys\n", row.participation_ratio());
    std::printf("sensitivity %.4f of at most %.4f\n", norms.spectral.value, attnscope::gradient_limit(1.0));
}
