// Sums and exponents over a selection without one of its keys.
#include <attnscope/selection/separability_bounds.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;

TEST_CASE("sums without one key keep the digits of the others", "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Worst worst;
    for (std::size_t w = 0; w < weight_families.size(); ++w)
        for (const std::size_t n : {std::size_t(1), std::size_t(2), std::size_t(5), std::size_t(40)}) {
            SplitMix64 random = generator(seed, w, n);
            std::vector<double> p(n);
            weight_families[w].fill(random, p);
            // The sums themselves, and the squares without the largest: n terms >= 0, all exact to n u.
            const attnscope::detail::LeaveOneOut<double> without(in(p));
            for (std::size_t i = 0; i < n; ++i) {
                std::vector<double> others = p;
                others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
                std::sort(others.begin(), others.end());
                Ref sum = 0, squares = 0, minor = 0;
                for (std::size_t j = 0; j < others.size(); ++j) {
                    sum += others[j];
                    squares += Ref(others[j]) * Ref(others[j]);
                    if (j + 1 < others.size()) minor += Ref(others[j]) * Ref(others[j]);
                }
                const Where where{weight_families[w].name, n, 1, seed};
                const Ref relative = unit_roundoff<double> * static_cast<Ref>(n + 2);
                const Ref underflow = static_cast<Ref>(n) * std::numeric_limits<double>::denorm_min();
                worst.meet(std::abs(Ref(without.sum[i]) - sum), relative * sum, where);
                worst.meet(std::abs(Ref(without.squares[i]) - squares), relative * squares + underflow, where);
                worst.meet(std::abs(Ref(without.minor_squares[i]) - minor), relative * minor + underflow,
                           where);
                worst.meet(without.largest[i] == (others.empty() ? 0 : others.back()), where);
            }
        }
    ATTNSCOPE_CHECK_WORST(worst);

    // One weight dwarfs the rest: what remains without it keeps all digits, where a difference would keep none.
    const std::vector<double> needle = {1e-20, 1, 1e-30};
    const attnscope::detail::LeaveOneOut<double> rest(in(needle));
    CHECK(rest.sum[1] == 1e-20 + 1e-30);
    CHECK(rest.squares[1] == 1e-20 * 1e-20 + 1e-30 * 1e-30);
    CHECK(rest.sum[0] == 1);
    CHECK(rest.squares[2] == 1);
    CHECK(rest.largest == std::vector<double>{1, 1e-20, 1});
    CHECK(rest.minor_squares == std::vector<double>{1e-30 * 1e-30, 1e-30 * 1e-30, 1e-20 * 1e-20});
}

TEST_CASE("exponents of the spherical model leave out one token as by the recursion itself",
          "[selection][theorem2]") {
    const std::uint64_t seed = test_seed();
    Worst worst;
    for (std::size_t w = 0; w < weight_families.size(); ++w)
        for (const std::size_t n :
             {std::size_t(1), std::size_t(2), std::size_t(3), std::size_t(7), std::size_t(40)})
            for (const double theta : {-3.0, -0.1, 0.5, 20.0}) {
                SplitMix64 random = generator(seed, w, n);
                std::vector<double> p(n);
                weight_families[w].fill(random, p);
                attnscope::detail::SquaredLengthExponents<double> lengths(in(p), 8);
                const std::vector<double>& found = lengths.compute(theta);
                for (std::size_t i = 0; i < n; ++i) {
                    std::vector<double> others = p;
                    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
                    // In whatever order: between those of the two sorted ones, up to rounding.
                    const Ref descending = exponent_of(others, 8, theta, false),
                              ascending = exponent_of(others, 8, theta, true);
                    const Ref rounding = 1e-14 * (1 + std::abs(descending) + std::abs(ascending));
                    const Ref room = Ref(0.5) * std::abs(descending - ascending) + rounding;
                    worst.meet(std::abs(Ref(found[i]) - (descending + ascending) / 2), 3 * room,
                               Where{weight_families[w].name, n, 1, seed});
                    if (n <= 3)
                        worst.meet(std::abs(Ref(found[i]) - descending), rounding,
                                   Where{weight_families[w].name, n, 1, seed});
                }
            }
    ATTNSCOPE_CHECK_WORST(worst);
}
