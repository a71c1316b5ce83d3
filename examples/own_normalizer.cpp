#include "own_normalizer.hpp"

#include <cstdio>

int main() {
    const Eigen::ArrayXd z = Eigen::ArrayXd::LinSpaced(64, -3, 5);
    std::printf("largest weight %.4f, softmax %.4f\n", attnscope::weights(TaylorSoftmax(), z).maxCoeff(),
                attnscope::weights(attnscope::Softmax(), z).maxCoeff());
    std::printf("sensitivity %.4f\n", attnscope::jacobian_norms(TaylorSoftmax(), z).spectral.value);
    attnscope::Audit audit;
    for (double scale = 0.01; scale < 100; scale *= 1.1) // rows from flat to wide
        attnscope::audit_row(audit, TaylorSoftmax(), scale * z);
    std::printf("%s", to_table(audit).c_str());
}
