// The experiments of arXiv:2508.17821 on the heads of a layer.
#include <attnscope/analysis/findings.hpp>
#include <attnscope/analysis/run_experiments.hpp>
#include <attnscope/io/experiments_csv.hpp>
#include <attnscope/problems/heads.hpp>
#include <attnscope/streaming/threads.hpp>
#include <cstdio>
#include <vector>

int main() {
    attnscope::SplitMix64 random(1);
    std::vector<attnscope::problems::ProblemHead> heads; // q, k and v [tokens, width] of your model
    for (const double needle : {0.0, 4.0, 12.0})
        heads.push_back(attnscope::problems::synthetic_head(256, 32, {.sink = 4, .needle = needle}, random));

    // Of 1 layer of 3 heads; true: coarser grids of N and T, which take less time.
    attnscope::Experiments found(attnscope::experiment_options(256, true), 1, 3);
    attnscope::ExperimentLayer<double> layer{
        .number = 0,
        .head = [&](Eigen::Index i) { return attnscope::HeadView(heads[i].q, heads[i].k, heads[i].v); },
        .mask = attnscope::Mask::causal()};
    attnscope::run_experiments(found, layer, attnscope::Threads(2)); // once for each layer

    for (const attnscope::Finding& finding : attnscope::findings(found))
        std::printf("%s: %s\n  here: %s: %s\n", finding.experiment.data(), finding.paper.data(),
                    finding.here.c_str(), name_of(finding.agreement).data());
    std::printf("rows that violate a sharp statement: %zu\n", found.audit.sharp_violations());
    for (const attnscope::ExperimentHead& head : found.heads)
        std::printf("head %d: entropy %.3f nats, N_s/N %.3f at N = 16, %d keys for 1 %% of the output\n",
                    int(head.head), head.at_length.back().entropy_nats,
                    found.figure(head, attnscope::CurveFigure::separable, 16), int(head.plan.output->measured));
    const std::string table = attnscope::io::means_csv(found); // and seven more, and JSON
    std::printf("%s...\n", table.substr(0, table.find(',', 40)).c_str());
}
