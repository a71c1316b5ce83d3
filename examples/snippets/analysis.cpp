// Everything about a head in one call.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/table.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    const auto tokens = [&] {
        return Eigen::MatrixXf::NullaryExpr(64, 16, [&] { return float(random.normal()); });
    };
    const Eigen::MatrixXf q = 2 * tokens(), k = tokens(), v = tokens(); // any Eigen type, order and scalar

    const auto head = attnscope::analyze(q, k, v, {.mask = attnscope::Mask::causal(), .counts = {1, 5, 20}});
    std::printf("mean entropy %.3f nats, query 63 gives its first key the weight %.4f\n",
                head.rows.entropy_nats.mean(), head.rows.first_key_weight[63]);
    const auto& top5 = head.selection(5); // rows that see more than 5 keys; the others hold NaN
    std::printf("of the top 5, a share of %.3f is nearer to their sum than any other token\n",
                attnscope::finite_mean(top5.separable_fraction));
    std::printf("rows that violate a sharp statement: %zu\n\n", head.audit.sharp_violations());
    std::fputs(attnscope::selection_table({&head, 1}).c_str(), stdout); // to_table(head) has the rest, too
}
