// Loops over rows: the range of a row with the place of its largest element, and sums that leave a place to others.
#include <attnscope/detail/lanes.hpp>
#include <support/rows.hpp>

#include <numeric>

using namespace attnscope_test;
namespace detail = attnscope::detail;

namespace {

/// Lengths around every number of packets, groups and blocks.
std::vector<std::size_t> many_lengths() {
    std::vector<std::size_t> result(140);
    std::iota(result.begin(), result.end(), std::size_t(0));
    for (const std::size_t near : {192u, 256u, 512u, 1024u, 2048u, 4160u})
        for (std::size_t n = near - 1; n <= near + 1; ++n) result.push_back(n);
    return result;
}

} // namespace

TEMPLATE_TEST_CASE("the range of a row and the first place of its largest element", "[lanes]", float, double,
                   long double) {
    using T = TestType;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 11);
    for (const std::size_t n : many_lengths())
        for (int kind = 0; kind < 4; ++kind) {
            std::vector<T> z(n);
            for (T& x : z)
                x = kind == 0   ? static_cast<T>(random.normal())
                    : kind == 1 ? static_cast<T>(random.below(5)) // ties
                    : kind == 2 ? (random.below(3) == 0 ? -infinity : static_cast<T>(random.normal()))
                                : -infinity;
            CAPTURE(n, kind);
            const auto top = std::max_element(z.begin(), z.end());
            T least = infinity;
            for (const T x : z)
                if (x > -infinity) least = std::min(least, x);
            for (const bool guess : {false, true}) {
                const auto found = detail::row_peak<T>(in(z), guess);
                CHECK(found.place == static_cast<std::size_t>(top - z.begin()));
                CHECK(found.max == (n > 0 ? *top : -infinity));
                CHECK(found.min == least);
                CHECK(found.visible == static_cast<Index>(n) - std::count(z.begin(), z.end(), -infinity));
            }
            const auto range = detail::row_range<T>(in(z));
            CHECK(range.min == (n > 0 ? *std::min_element(z.begin(), z.end()) : infinity));
            CHECK(range.max == (n > 0 ? *top : -infinity));
            for (const T limit : {T(0), T(2), infinity}) {
                const auto first = std::find_if(z.begin(), z.end(), [&](T x) { return x >= limit; });
                CHECK(detail::first_not_below<T>(in(z), limit) == static_cast<std::size_t>(first - z.begin()));
            }
        }
}

TEST_CASE("more elements are counted than floats count to", "[lanes]") {
    std::vector<float> z((std::size_t(1) << 24) + 75, 0.0F);
    for (const std::size_t i : {std::size_t(0), std::size_t(77), z.size() - 2})
        z[i] = -std::numeric_limits<float>::infinity();
    z[z.size() - 1] = 1;
    const auto found = detail::row_peak<float>(in(z));
    CHECK(found.visible == static_cast<Index>(z.size()) - 3);
    CHECK(found.min == 0);
    CHECK(found.place == z.size() - 1);
}

TEMPLATE_TEST_CASE("sums give every element to one function, groups beside a place to the other", "[lanes]",
                   float, double, long double) {
    using T = TestType;
    for (const std::size_t n : many_lengths()) {
        const std::vector<T> ones(n, T(1));
        for (const std::size_t place :
             {std::size_t(0), n / 3, n / 2, n - std::min<std::size_t>(n, 1), n + 100}) {
            CAPTURE(n, place);
            bool seen = false, wrong = false;
            const auto sums = detail::sum_groups<T, 2>(
                static_cast<Index>(n),
                [&](const auto& lane, detail::Packets<T, 2>& sum) {
                    using P = typename std::decay_t<decltype(lane)>::P;
                    const Index at = static_cast<Index>(place) - lane.i;
                    seen = seen || (at >= 0 && at < P::size);
                    sum.v[0] = add_to(sum.v[0], lane(ones.data(), T(0)));
                },
                static_cast<Index>(place),
                [&](const auto& lane, detail::Packets<T, 2>& sum) {
                    using P = typename std::decay_t<decltype(lane)>::P;
                    const Index at = static_cast<Index>(place) - lane.i;
                    wrong = wrong || (at >= 0 && at < P::size);
                    sum.v[1] = add_to(sum.v[1], lane(ones.data(), T(0)));
                });
            CHECK(sums[0] + sums[1] == static_cast<attnscope::Accumulator<T>>(n));
            CHECK(seen == (place < n));
            CHECK_FALSE(wrong);
            const auto alone = detail::sum_groups<T, 1>(
                static_cast<Index>(n), [&](const auto& lane, detail::Packets<T, 1>& sum) {
                    sum.v[0] = add_to(sum.v[0], lane(ones.data(), T(0)));
                });
            CHECK(alone[0] == static_cast<attnscope::Accumulator<T>>(n));
        }
    }
}

TEMPLATE_TEST_CASE("sums of four packets at once have the bits of each", "[lanes][packet]", float, double,
                   long double) {
    using P = detail::Packet<TestType>;
    SplitMix64 random = generator(test_seed(), 13);
    for (int repetition = 0; repetition < 200; ++repetition) {
        std::array<typename P::Elements, 4> x;
        for (auto& elements : x)
            for (TestType& element : elements) element = static_cast<TestType>(std::exp(5 * random.normal()));
        const auto packet = [&](std::size_t k) { return P::load(x[k].data()); };
        const auto sums = reduce_add(packet(0), packet(1), packet(2), packet(3));
        const auto largest = reduce_max(packet(0), packet(1), packet(2), packet(3));
        for (std::size_t k = 0; k < x.size(); ++k) {
            CHECK(sums[k] == reduce_add(packet(k)));
            CHECK(largest[k] == *std::max_element(x[k].begin(), x[k].end()));
            const auto exact = std::accumulate(x[k].begin(), x[k].end(), Ref(0));
            CHECK(std::abs(Ref(sums[k]) - exact) <= 5 * unit_roundoff<TestType> * exact);
        }
    }
}

TEMPLATE_TEST_CASE("partial packets read no element behind the row, and are filled", "[lanes][packet]", float,
                   double, long double) {
    using P = detail::Packet<TestType>;
    for (Index count = 0; count < P::size; ++count) {
        const std::vector<TestType> row(static_cast<std::size_t>(count),
                                        TestType(3)); // its end is the allocation's
        typename P::Elements found;
        P::load_partial(row.data(), count, TestType(-2)).store(found.data());
        for (std::size_t i = 0; i < found.size(); ++i)
            CHECK(found[i] == (static_cast<Index>(i) < count ? 3 : -2));
    }
}
