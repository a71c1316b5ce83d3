// How long a context, how low a temperature?
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    const double spread = 12,
                 half = 0.5; // logits lie within 12 of each other; the best key shall have half the weight
    std::printf("beyond %.0f keys no row of this spread does\n", attnscope::longest_context(spread, 1, half));
    std::printf("at 1,000,000 keys it takes a temperature of at most %.3f\n",
                attnscope::highest_temperature(1000000, spread, half));
    std::printf("or a spread of %.1f at temperature 1\n", attnscope::needed_spread(1000000, 1, half));

    // From a measured row: what its own gaps allow if longer rows are like it.
    attnscope::SplitMix64 random(1);
    Eigen::VectorXd z = Eigen::VectorXd::NullaryExpr(1000, [&] { return 1.5 * random.normal(); });
    z[0] = 12;
    const auto limits = attnscope::length_limits(attnscope::row_statistics(z), half);
    std::printf("this row: certain up to %.0f keys, expected up to %.0f\n", std::floor(limits.guaranteed),
                std::floor(limits.expected));
}
