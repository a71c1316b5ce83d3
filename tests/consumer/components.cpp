// The dependencies of all components are there.
#include <attnscope/config.hpp>
#include <boost/math/special_functions/beta.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unsupported/Eigen/CXX11/Tensor>

#include <iostream>

int main() {
    const Eigen::Tensor<double, 1> tensor(2);
    const nlohmann::json json = boost::math::ibeta(1.0, 1.0, 0.5);
    if (json.get<double>() != 0.5 || tensor.size() != 2) return 1;
    std::cout << fmt::format("attnscope {}\n", attnscope::version);
}
