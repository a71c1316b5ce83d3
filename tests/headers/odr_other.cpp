// The second file: everything it includes is in odr_main.cpp as well.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/table.hpp>
#include <attnscope/attnscope.hpp>
#include <attnscope/planner/plan_head.hpp>

const void* address_of_version() { return &attnscope::version; }

Eigen::VectorXd weights_there(const Eigen::VectorXd& z) { return attnscope::weights(attnscope::Softmax{}, z); }
