// How strongly a row reacts: gradients, norms of the Jacobian, and the theorem that limits them.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    const Eigen::VectorXd z = Eigen::VectorXd::LinSpaced(8, -2, 2);
    const attnscope::Softmax softmax(0.5);

    Eigen::VectorXd gradient = Eigen::VectorXd::Zero(8); // of a loss with respect to the weights
    gradient[7] = -1;
    const Eigen::VectorXd back = attnscope::vjp(softmax, z, gradient); // with respect to the logits
    std::printf("d loss/dz_7 = %.4f\n", back[7]);

    const auto norms = attnscope::jacobian_norms(softmax, z);
    const double limit = attnscope::gradient_limit(softmax.temperature());
    std::printf("|J|_2 = %.4f <= 1/(2T) = %.1f, |J|_F = %.4f\n", norms.spectral.value, limit, norms.frobenius);

    // A step of any size in any direction: g = |p(z + eps v) - p(z)|/eps for a unit vector v.
    const Eigen::VectorXd v = Eigen::VectorXd::Ones(8) / std::sqrt(8.0) - Eigen::VectorXd::Unit(8, 7);
    const double g = attnscope::finite_difference(softmax, z, (v / v.norm()).eval(), 0.1);
    std::printf("a step of 0.1 moves the weights by %.4f of at most %.4f\n", g,
                attnscope::finite_difference_limit(softmax.temperature(), 0.1));
}
