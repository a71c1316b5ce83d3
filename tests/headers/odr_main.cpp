// Two files that include everything link into one program, share what is inline and compute the same.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/table.hpp>
#include <attnscope/attnscope.hpp>
#include <attnscope/planner/plan_head.hpp>

#include <iostream>

const void* address_of_version();
Eigen::VectorXd weights_there(const Eigen::VectorXd& z);

int main() {
    const Eigen::VectorXd z = Eigen::VectorXd::LinSpaced(11, -2.0, 3.0);
    const bool one_version = address_of_version() == &attnscope::version;
    const bool same_weights = weights_there(z) == attnscope::weights(attnscope::Softmax{}, z);
    std::cout << "one version: " << one_version << ", same weights: " << same_weights << '\n';
    return one_version && same_weights ? 0 : 1;
}
