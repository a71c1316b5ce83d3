// What a selection keeps: the N largest weights, a share of the mass, keys of your own.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    const Eigen::VectorXd z = Eigen::VectorXd::NullaryExpr(40, [&] { return 2 * random.normal(); });
    const Eigen::MatrixXd x = Eigen::MatrixXd::NullaryExpr(40, 8, [&] { return random.normal(); });
    const Eigen::VectorXd p = attnscope::weights(attnscope::Softmax{}, z);

    const auto show = [&](const char* name, const attnscope::SelectedSet<double>& set) {
        const auto geometry = attnscope::separability(set);
        std::printf("%-10s %2td keys, mass %.3f, output off by %.3f, %.0f %% nearer than any other\n", name,
                    set.selected_count(), set.mass(), attnscope::truncation_error(set),
                    100 * geometry.separable_fraction);
    };
    show("top 5", attnscope::select_top(p, x, 5));

    // As many as it takes for 90 % of the mass: top-p behind softmax leaves weights on those keys only.
    const Eigen::VectorXd kept = attnscope::weights(attnscope::Softmax{} | attnscope::top_p(0.9), z);
    show("90 % mass", attnscope::select_top(p, x, (kept.array() > 0).count()));

    attnscope::SelectedSet<double> own; // what your cache policy keeps, say: the last eight
    const std::vector<attnscope::Index> keys = {32, 33, 34, 35, 36, 37, 38, 39};
    own.assign(p, x, keys);
    show("the last 8", own);
}
