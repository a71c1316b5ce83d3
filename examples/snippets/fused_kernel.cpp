// The log-sum-exp that a fused kernel returns, and which keys collect the weight.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    attnscope::Matrix<float> q(300, 8), k(300, 8);
    q = q.NullaryExpr(300, 8, [&] { return float(random.normal()); });
    k = k.NullaryExpr(300, 8, [&] { return float(random.normal()); });
    q.col(0).setConstant(3);
    k(0, 0) = 6; // key 0 is what every query likes: a sink
    const attnscope::HeadView head(q, k);
    const auto mask = attnscope::Mask::causal();

    std::vector<float> lse; // one number a query, as fused kernels keep it for the backward pass
    for (const auto& row : attnscope::scan(head, mask).rows)
        lse.push_back(float(row.statistics().log_sum_exp()));

    const auto columns = attnscope::scan_column_mass(head, lse, mask);
    attnscope::Index key = 0;
    const double most = columns.mass.maxCoeff(&key);
    std::printf("key %td collects most: %.3f of the weight of a query on average\n", key, most);
    std::printf("weights sum to %.4f\n", columns.row_sum);
}
