// How good is a cache that forgets, and an index of blocks?
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    using namespace attnscope;
    SplitMix64 random(1);
    const auto tokens = [&] {
        return Eigen::MatrixXf::NullaryExpr(512, 32, [&] { return float(random.normal()); });
    };
    Eigen::MatrixXf q = 2 * tokens(), k = tokens(), v = tokens();
    for (Index i = 1; i < 512; ++i) k.row(i) = 0.98f * k.row(i - 1) + 0.2f * k.row(i); // neighbours are alike
    const Head<float> owned(q, k, v);
    const HeadView<float> head = owned.view();
    const Mask mask = Mask::causal();

    // 64 of up to 512 keys: H2O keeps the last 32 and those that were looked at most.
    const auto scan = scan_selection(head, evict(HeavyHitters(32), head, {.budget = 64}), mask);
    const auto& last = scan.rows[511];
    std::printf(
        "the last query's set keeps %.2f of the mass; %.2f is the selector's fault, %.2f the budget's\n",
        last.kept, last.selector_loss, last.budget_loss);
    std::printf("the output moves by %.2f, certainly by no more than %.2f\n", last.output_error,
                last.output_limit);

    // Your own: any callable that gives the keys of a query.
    const auto every_other = [](Index query) {
        std::vector<Index> keys;
        for (Index key = query % 2; key <= query; key += 2) keys.push_back(key);
        return keys;
    };
    std::printf("every other key keeps %.2f on average\n",
                scan_selection(head, every_other, mask).mean(&SelectionFigures<double>::kept));

    // Blocks of 4 keys, read until 90 % of the mass are certain: the rest is not looked at.
    const KeyBlocks<float> blocks(head.k(), 4, head.v());
    const auto read = BlockReader<float>(head, blocks, mask).until(511, 0.9);
    std::printf("%zu of %td blocks hold %.2f for certain, the output is off by at most %.2f\n",
                read.blocks.size(), read.visible_blocks, read.kept, read.output);
}
