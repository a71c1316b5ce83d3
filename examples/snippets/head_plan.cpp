// What a head needs: which temperature, how many keys, how many bits.
#include <attnscope/planner/plan_head.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    const auto tokens = [&] {
        return Eigen::MatrixXf::NullaryExpr(256, 16, [&] { return float(random.normal()); });
    };
    const Eigen::MatrixXf q = 3 * tokens(), k = tokens(), v = tokens();

    attnscope::PlanQuestion question;
    question.length = 4096;       // of the context to plan for
    question.weight = 0.5;        // what the best key shall get there, in half of the rows
    question.output_error = 0.05; // relative, that a selection may cost
    question.bits = true;         // of the key cache
    const auto plan = attnscope::plan_head(q, k, v, question, attnscope::Mask::causal());

    std::printf("%td rows of %.0f keys on average\n", plan.rows, plan.mean_keys);
    std::printf("weight 1/2 at 4096 keys: temperature %.2f\n", 1 / plan.aims.front().inverse_temperature);
    std::printf("5 %% of the output: top %td, certain with top %td, or top-p %.3f\n", plan.output->measured,
                plan.output->certified, plan.output->top_p);
    std::printf("1 %% of the output: %d bits a number of a key\n", plan.bits->bits.measured);
    std::printf("made of the first half, it holds in %.0f %% of the second half's rows\n",
                100 * plan.output->top_k.held_out);
}
