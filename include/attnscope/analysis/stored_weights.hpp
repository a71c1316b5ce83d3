// Weights that somebody stored: in which scalar, what their rows sum to, and whether a sum beside 1 is rounding.
#pragma once

#include <attnscope/attention/mask.hpp>

#include <string_view>

namespace attnscope {
inline namespace v0_2 {

/// Scalars in which weights are stored.
enum class StoredScalar { float16, bfloat16, float32, float64 };

/// "float16", "bfloat16", "float32" or "float64".
constexpr std::string_view name_of(StoredScalar scalar) {
    constexpr std::array<std::string_view, 4> names = {"float16", "bfloat16", "float32", "float64"};
    return names[static_cast<std::size_t>(scalar)];
}

/// The scalar in which weights were stored, found from the numbers: weights are often widened before they are
/// saved.
/// Formula. The narrowest scalar that has every finite number of the matrix, `stored` if that is none of 16
/// or 32 bits or has 16 itself. Of numbers that both scalars of 16 bits have, bfloat16 is told by its last
/// bit; numbers that do without were rounded to neither, and float16 allows less.
/// Cost. One pass over the matrix, no allocation.
inline StoredScalar narrowest_scalar(MatrixView<double> values, StoredScalar stored) {
    if (stored == StoredScalar::float16 || stored == StoredScalar::bfloat16) return stored;
    bool f16 = true, bf16 = true, f32 = true, last_bit = false;
    for (Index i = 0; i < values.rows(); ++i)
        for (const double x : values.row(i)) {
            if (!std::isfinite(x)) continue;
            const float narrow = static_cast<float>(x);
            f32 = f32 && static_cast<double>(narrow) == x;
            f16 = f16 && f32 && static_cast<float>(Eigen::half(narrow)) == narrow;
            const Eigen::bfloat16 brain(narrow);
            bf16 = bf16 && f32 && static_cast<float>(brain) == narrow;
            last_bit = last_bit || (Eigen::numext::bit_cast<std::uint16_t>(brain) & 1) != 0;
        }
    return f16 && !(bf16 && last_bit) ? StoredScalar::float16
           : bf16                     ? StoredScalar::bfloat16
           : f32                      ? StoredScalar::float32
                                      : stored;
}

/// By how much a row of n weights can miss the sum 1 because it was stored. Weights of 16 bits are rounded
/// once, after arithmetic in float. O(1).
inline double sum_rounding(StoredScalar scalar, Index n, double sum) {
    const double count = static_cast<double>(n), single = std::ldexp(1.0, -24);
    const double arithmetic = 3 + std::sqrt(count);
    switch (scalar) {
    case StoredScalar::float16:
        return std::ldexp(sum, -11) + std::ldexp(count, -25) + single * arithmetic;
    case StoredScalar::bfloat16:
        return std::ldexp(sum, -8) + single * arithmetic;
    case StoredScalar::float32:
        return single * arithmetic;
    case StoredScalar::float64:
        break;
    }
    return std::ldexp(arithmetic, -53);
}

/// One row of stored weights.
struct StoredRow {
    double sum = 0, hidden = 0; ///< hidden: on keys that the mask hides
    bool hides_weight = false;  ///< is one of those not 0? (They may cancel.)
    Index negative = 0;         ///< entries below 0
    bool sums_to_one = true;    ///< to the rounding of the stored scalar
};

/// What a row of stored weights is like.
/// Cost. O(n), no allocation.
inline StoredRow stored_row(RowIn<double> p, const KeyRanges& visible, StoredScalar scalar) {
    StoredRow row;
    for (std::size_t j = 0; j < p.size(); ++j) {
        row.sum += p[j];
        row.negative += p[j] < 0;
        if (visible.contains(static_cast<Index>(j))) continue;
        row.hidden += p[j];
        row.hides_weight = row.hides_weight || p[j] != 0;
    }
    row.sums_to_one = std::abs(row.sum - 1) <= sum_rounding(scalar, static_cast<Index>(p.size()), row.sum);
    return row;
}

} // namespace v0_2
} // namespace attnscope
