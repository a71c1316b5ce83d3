// What every consumer builds: weights of a few logits.
#include <attnscope/attnscope.hpp>

#include <cmath>
#include <iostream>

int main() {
    const Eigen::Vector3d z(1.0, 2.0, 3.0);
    const auto p = attnscope::weights(attnscope::Softmax{}, z);
    if (!(std::abs(p.sum() - 1.0) < 1e-12 && p[2] > p[1])) return 1;
    std::cout << "attnscope " << attnscope::version << '\n';
}
