// What every random test shares: the reference scalar, unit roundoffs, seeds, and a tally of the worst case.
#pragma once

#include <attnscope/random.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace attnscope_test {

using attnscope::Index;
using attnscope::SplitMix64;

/// The scalar of the references.
using Ref = long double;
using RefRow = std::vector<Ref>;
static_assert(std::numeric_limits<Ref>::digits >= 64, "the references need a long double wider than double");

/// Largest relative error of one rounding.
template <class T>
inline constexpr Ref unit_roundoff = Ref(std::numeric_limits<T>::epsilon()) / 2;

/// The scalar in which the library adds up rows of T.
template <class T>
using SumScalar = std::conditional_t<std::is_same_v<T, float>, double, T>;

/// Relative error of a sum of n positive terms that is added in blocks of 64 and the blocks in the sum scalar.
template <class T>
Ref sum_error(std::size_t n) {
    return Ref(n < 64 ? n : 64) * unit_roundoff<T> + Ref(n / 64 + 1) * unit_roundoff<SumScalar<T>>;
}

template <class T>
std::string_view scalar_name() {
    if constexpr (std::is_same_v<T, float>) return "float";
    if constexpr (std::is_same_v<T, double>) return "double";
    return "long double";
}

/// The seed of all random tests: ATTNSCOPE_TEST_SEED, or a fixed one.
inline std::uint64_t test_seed() {
    const char* given = std::getenv("ATTNSCOPE_TEST_SEED");
    return given != nullptr && *given != '\0' ? std::strtoull(given, nullptr, 0) : 0x2508'17821ULL;
}

/// A generator of its own for each part of a test, so that parts do not depend on what was drawn before them.
template <class... Parts>
SplitMix64 generator(std::uint64_t seed, Parts... parts) {
    ((seed = SplitMix64(seed ^ (0x9e37'79b9ULL * (static_cast<std::uint64_t>(parts) + 1)))()), ...);
    return SplitMix64(seed);
}

/// Which row a figure belongs to.
struct Where {
    std::string_view family;
    std::size_t length = 0;
    double temperature = 1;
    std::uint64_t seed = 0;
    std::string_view scalar = "double";
    std::string normalizer = "softmax";

    std::string text() const {
        std::ostringstream out;
        out << normalizer << ", " << scalar << ", family " << family << ", n " << length << ", T "
            << temperature << ", seed " << seed;
        return out.str();
    }
};

/// The largest error over its tolerance among everything it met. A NaN on either side counts as a failure.
class Worst {
public:
    void meet(Ref error, Ref tolerance, const Where& where) {
        ++met_;
        Ref ratio = error <= 0 ? Ref(0) : error / tolerance;
        if (std::isnan(error) || std::isnan(tolerance)) ratio = std::numeric_limits<Ref>::infinity();
        if (ratio > ratio_) {
            ratio_ = ratio;
            error_ = error;
            tolerance_ = tolerance;
            where_ = where;
        }
    }
    /// A statement without tolerance.
    void meet(bool holds, const Where& where) { meet(holds ? Ref(0) : Ref(2), Ref(1), where); }

    std::size_t met() const { return met_; }
    double ratio() const { return static_cast<double>(ratio_); }
    std::string text() const {
        std::ostringstream out;
        out << met_ << " checks, worst error " << error_ << " against tolerance " << tolerance_;
        if (ratio_ > 0) out << " in " << where_.text();
        return out.str();
    }

private:
    std::size_t met_ = 0;
    Ref ratio_ = 0;
    Ref error_ = 0;
    Ref tolerance_ = 0;
    Where where_;
};

/// Fails unless something was met and nothing exceeded its tolerance.
#define ATTNSCOPE_CHECK_WORST(worst)                                                                           \
    do {                                                                                                       \
        INFO(#worst << ": " << (worst).text());                                                                \
        CHECK((worst).met() > 0);                                                                              \
        CHECK((worst).ratio() <= 1.0);                                                                         \
    } while (false)

template <class T>
std::span<const T> in(const std::vector<T>& row) {
    return row;
}
template <class T>
std::span<T> out(std::vector<T>& row) {
    return row;
}

template <class T>
RefRow widen(const std::vector<T>& row) {
    return RefRow(row.begin(), row.end());
}

template <class T>
std::vector<T> narrow(const std::vector<double>& row) {
    std::vector<T> result;
    result.reserve(row.size());
    for (double x : row) result.push_back(static_cast<T>(x));
    return result;
}

template <class T>
std::vector<T> normal_row(SplitMix64& random, std::size_t n) {
    std::vector<T> row(n);
    for (T& x : row) x = static_cast<T>(random.normal());
    return row;
}

} // namespace attnscope_test
