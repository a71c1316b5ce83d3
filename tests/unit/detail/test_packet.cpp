// Packets and groups of them calculate with every element as with one number.
#include <attnscope/detail/simd/exp.hpp>
#include <support/catch.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace {

using attnscope::Index;
namespace detail = attnscope::detail;

/// first, first + step, ...
template <class P>
P ramp(typename P::Scalar first, typename P::Scalar step) {
    typename P::Elements x;
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = first + static_cast<typename P::Scalar>(i) * step;
    return P::load(x.data());
}
template <class P>
typename P::Elements elements(const P& x) {
    typename P::Elements result;
    x.store(result.data());
    return result;
}

/// Every element of `x` is f(index).
template <class P, class F>
void check_each(const P& x, F&& f) {
    const auto found = elements(x);
    for (std::size_t i = 0; i < found.size(); ++i) {
        CAPTURE(i);
        CHECK(found[i] == f(i));
    }
}

} // namespace

TEMPLATE_TEST_CASE("packets and groups calculate element by element", "[packet]", detail::Packet<float>,
                   detail::Packet<double>, detail::Packet<long double>, detail::PacketGroup<float>,
                   detail::PacketGroup<double>, detail::PacketGroup<long double>) {
    using P = TestType;
    using T = typename P::Scalar;
    const P a = ramp<P>(T(-7), T(2)), b = ramp<P>(T(3), T(-0.5));
    const auto x = elements(a), y = elements(b);
    const detail::Packet<T> five = T(5);
    // Sums and products of these numbers are exact, fused or not.
    check_each(a + b, [&](std::size_t i) { return x[i] + y[i]; });
    check_each(a - b, [&](std::size_t i) { return x[i] - y[i]; });
    check_each(a * b, [&](std::size_t i) { return x[i] * y[i]; });
    check_each(madd(a, b, a), [&](std::size_t i) { return x[i] * y[i] + x[i]; });
    check_each(max(a, b), [&](std::size_t i) { return std::max(x[i], y[i]); });
    check_each(select_below(a, b, b, a), [&](std::size_t i) { return x[i] < y[i] ? y[i] : x[i]; });
    if constexpr (std::same_as<P, detail::Packet<T>>)
        for (const std::uint32_t bits : {0u, 1u, 0x5a5au, 0xa5a5u, 0xffffu})
            check_each(choose(bits, a, b), [&](std::size_t i) { return (bits >> i & 1) != 0 ? x[i] : y[i]; });
    for (Index place = 0; place < P::size; ++place)
        check_each(with_element(a, place, T(9)),
                   [&](std::size_t i) { return static_cast<Index>(i) == place ? T(9) : x[i]; });
    if constexpr (std::same_as<P, detail::Packet<T>>)
        CHECK(masks_not_below(a, b, b, a) == (mask_not_below(a, b) | mask_not_below(b, a) << P::size));
    // Numbers and single packets beside them.
    check_each(T(2) * a - T(1), [&](std::size_t i) { return T(2) * x[i] - T(1); });
    check_each(five - a * five, [&](std::size_t i) { return T(5) - x[i] * T(5); });
    check_each(madd(T(2), a, five), [&](std::size_t i) { return T(2) * x[i] + T(5); });
    check_each(select_below(a, T(0), five, a), [&](std::size_t i) { return x[i] < T(0) ? T(5) : x[i]; });
    check_each(map([](detail::Packet<T> z) { return z + z; }, a), [&](std::size_t i) { return x[i] + x[i]; });

    T sum = 0, products = 0, largest = -100;
    for (std::size_t i = 0; i < x.size(); ++i) {
        sum += x[i];
        products += x[i] * y[i];
        largest = std::max(largest, x[i]);
    }
    const detail::Packet<T> none = T(0), low = T(-100);
    CHECK(reduce_add(add_to(none, a)) == sum);
    CHECK(reduce_add(madd_to(none, a, b)) == products);
    CHECK(reduce_max(max_to(low, a)) == largest);
}

TEMPLATE_TEST_CASE("packets have quotients, roots, extremes and masks", "[packet]", float, double,
                   long double) {
    using T = TestType;
    using P = detail::Packet<T>;
    const P a = ramp<P>(T(-3), T(1.5)), b = ramp<P>(T(1), T(1));
    const auto x = elements(a), y = elements(b);
    check_each(a / b, [&](std::size_t i) { return x[i] / y[i]; });
    check_each(abs(a), [&](std::size_t i) { return std::abs(x[i]); });
    check_each(min(a, b), [&](std::size_t i) { return std::min(x[i], y[i]); });
    check_each(loaded(a), [&](std::size_t i) { return x[i]; });
    P total = a;
    total += b;
    check_each(total, [&](std::size_t i) { return x[i] + y[i]; });
    const auto roots = elements(sqrt(b)); // Eigen's, by Newton's steps with AVX-512
    for (std::size_t i = 0; i < x.size(); ++i)
        CHECK(std::abs(roots[i] - std::sqrt(y[i])) <= 2 * std::numeric_limits<T>::epsilon() * std::sqrt(y[i]));
    CHECK(reduce_min(a) == x.front());
    CHECK(any_below(a, T(-2)));
    CHECK_FALSE(any_below(a, x.front()));
    for (std::size_t i = 0; i < x.size(); ++i) // the place of every limit
        CHECK(std::countr_zero(mask_not_below(a, x[i])) == static_cast<int>(i));
    // Those at two of three places, one after the other.
    auto mixed = x;
    std::vector<T> wanted;
    for (std::size_t i = 0; i < mixed.size(); ++i) {
        if (i % 3 == 1)
            mixed[i] = -100;
        else
            wanted.push_back(mixed[i]);
    }
    std::vector<T> stored(x.size(), T(7));
    REQUIRE(store_not_below(P::load(mixed.data()), P(x.front()), stored.data()) ==
            static_cast<Index>(wanted.size()));
    CHECK(std::equal(wanted.begin(), wanted.end(), stored.begin()));
    CHECK(store_not_below(a, P(x.front()), stored.data()) == P::size);
    CHECK(std::equal(x.begin(), x.end(), stored.begin()));
}

TEMPLATE_TEST_CASE("squares of numbers are transposed", "[packet]", float, double, long double) {
    using T = TestType;
    constexpr auto size = static_cast<std::size_t>(detail::Packet<T>::size), stride = size + 3;
    std::vector<T> from(size * stride), to(size * size);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<T>(i);
    detail::transpose_square<T>(from.data(), static_cast<Index>(stride), to.data());
    for (std::size_t i = 0; i < size; ++i)
        for (std::size_t c = 0; c < size; ++c) CHECK(to[c * size + i] == from[i * stride + c]);
}

TEMPLATE_TEST_CASE("elements and their places are stored one after the other, for every set of them",
                   "[packet]", float, double) {
    using T = TestType;
    using P = detail::Packet<T>;
    using Place = typename P::Place;
    const auto size = static_cast<std::size_t>(P::size);
    std::size_t wrong = 0;
    for (std::size_t set = 0; set < std::size_t(1) << size; ++set) {
        typename P::Elements mixed;
        std::vector<T> high, low;
        std::vector<Place> places;
        for (std::size_t i = 0; i < size; ++i) {
            const bool in = (set >> i & 1) != 0;
            mixed[i] = in ? T(10) + static_cast<T>(i) : i % 3 == 0 ? T(-1) : T(-2);
            (in ? high : low).push_back(mixed[i]);
            if (in) places.push_back(static_cast<Place>(1000 + i));
            if (!in && i % 2 == 1) { // NaN is in neither
                mixed[i] = std::numeric_limits<T>::quiet_NaN();
                low.pop_back();
            }
        }
        const P x = P::load(mixed.data()), limit = T(10);
        std::vector<T> stored(2 * size, T(7));
        const auto meets = [&](const auto& wanted, const auto& found, Index count) {
            wrong += count != std::ssize(wanted) || !std::equal(wanted.begin(), wanted.end(), found.begin()) ||
                     found[size] != 7;
        };
        meets(high, stored, store_not_below(x, limit, stored.data()));
        meets(low, stored, store_below(x, limit, stored.data()));
        if constexpr (requires(Place* target) { P::store_places_not_below(x, limit, Place(0), target); }) {
            std::vector<Place> found(2 * size, Place(7));
            meets(places, found, P::store_places_not_below(x, limit, Place(1000), found.data()));
            for (std::size_t i = places.size(); i < size; ++i) wrong += found[i] != 0 && found[i] != 1000;
        }
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("packets take NaN as said", "[packet]", float, double, long double) {
    using T = TestType;
    using P = detail::Packet<T>;
    const P nan = std::numeric_limits<T>::quiet_NaN(), one = T(1), two = T(2);
    check_each(select_below(nan, one, one, two), [](std::size_t) { return T(2); });
    CHECK_FALSE(any_below(nan, one));
    CHECK_FALSE(any_below(one, nan));
    CHECK(mask_not_below(nan, one) == 0);
    CHECK(mask_not_below(one, nan) == 0);
    typename P::Elements stored;
    CHECK(store_not_below(nan, one, stored.data()) == 0);
    CHECK(store_not_below(one, nan, stored.data()) == 0);
    CHECK(std::isnan(reduce_add(one + nan)));
}

TEMPLATE_TEST_CASE("partial packets read and write no more than they have", "[packet]", float, double,
                   long double) {
    using T = TestType;
    using P = detail::Packet<T>;
    for (Index count = 1; count < P::size; ++count) {
        CAPTURE(count);
        const std::vector<T> source(static_cast<std::size_t>(count), T(3)); // its end is the end of memory
        std::vector<T> target(static_cast<std::size_t>(count), T(0));
        const P x = P::load_partial(source.data(), count, T(-1));
        check_each(x, [&](std::size_t i) { return static_cast<Index>(i) < count ? T(3) : T(-1); });
        typename P::Elements kept;
        kept.fill(T(9));
        x.store_partial(kept.data(), count);
        x.store_partial(target.data(), count);
        CHECK(target == source);
        for (std::size_t i = 0; i < kept.size(); ++i)
            CHECK(kept[i] == (static_cast<Index>(i) < count ? T(3) : T(9)));
    }
}

TEST_CASE("two packets of doubles become one of floats", "[packet]") {
    if constexpr (detail::can_narrow) {
        using Wide = detail::Packet<double>;
        const double next = static_cast<double>(Wide::size);
        check_each(detail::narrow(ramp<Wide>(0.1, 1), ramp<Wide>(0.1 + next, 1)),
                   [](std::size_t i) { return static_cast<float>(0.1 + static_cast<double>(i)); });
    }
}
