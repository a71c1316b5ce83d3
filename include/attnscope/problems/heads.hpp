// Heads whose habits are known: a sink on the first key, a window of neighbours, one earlier key that is retrieved.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/random.hpp>
#include <attnscope/types.hpp>

#include <numbers>

namespace attnscope {
inline namespace v0_2 {
namespace problems {

/// What a query of a synthetic head is made of: so many logits, about, for each of the parts.
struct HeadRecipe {
    double noise = 1;  ///< standard deviation of what is random
    double sink = 0;   ///< on the first key
    double local = 0;  ///< on the query's own place, less on its neighbours
    double needle = 0; ///< on one earlier key, drawn for each query
};

/// Queries, keys and values of a head; logits are q.k/sqrt(d) under a causal mask.
struct ProblemHead {
    Matrix<double> q, k, v;     ///< [tokens, width] each
    std::vector<Index> needles; ///< by query: the key that it retrieves, -1 if none
};

/// A causal head of a recipe. Each part speaks to its own coordinates of the keys: one that only the first key carries,
/// 12 pairs (cos, sin) of positions with wavelengths from 4 to 512 tokens, and random content, which a query with a
/// needle repeats. Values share a mean and a few long directions, as trained ones do; that of the first key is small.
/// Throws. `invalid_argument` unless tokens >= 1 and width >= 26.
/// Example:
///     SplitMix64 random(1);
///     const auto head = problems::synthetic_head(256, 64, {.sink = 6}, random);
///     const auto rows = scan(head.q, head.k, head.v, Mask::causal());
inline ProblemHead synthetic_head(Index tokens, Index width, const HeadRecipe& recipe, SplitMix64& random) {
    constexpr Index sink_at = 0, local_at = 1, local_pairs = 12, content_at = local_at + 2 * local_pairs;
    detail::require(tokens >= 1, "synthetic_head", "tokens must be >= 1", tokens);
    detail::require(width > content_at, "synthetic_head", "width must be >= 26", width);
    const Index content = width - content_at;
    const double root = std::sqrt(static_cast<double>(width)), // logits are divided by it
        unit = 1 / std::sqrt(static_cast<double>(content)),
                 strength = std::sqrt(recipe.local * root / local_pairs);
    ProblemHead head{Matrix<double>(tokens, width), Matrix<double>(tokens, width),
                     Matrix<double>(tokens, width), std::vector<Index>(static_cast<std::size_t>(tokens), -1)};
    for (Index i = 0; i < tokens; ++i) {
        head.k(i, sink_at) = i == 0 ? root : 0;
        head.q(i, sink_at) = recipe.sink;
        for (Index pair = 0; pair < local_pairs; ++pair) {
            const double wave =
                4 * std::pow(128.0, static_cast<double>(pair) / static_cast<double>(local_pairs - 1));
            const double angle = 2 * std::numbers::pi * static_cast<double>(i) / wave;
            for (Matrix<double>* const rows : {&head.q, &head.k}) {
                (*rows)(i, local_at + 2 * pair) = strength * std::cos(angle);
                (*rows)(i, local_at + 2 * pair + 1) = strength * std::sin(angle);
            }
        }
        for (Index c = content_at; c < width; ++c) {
            head.k(i, c) = random.normal();
            head.q(i, c) = recipe.noise * root * unit * random.normal();
        }
        if (recipe.needle > 0 && i > 0) {
            const Index needle = random.below(i);
            const double norm = head.k.row(needle).tail(content).norm();
            head.q.row(i).tail(content) +=
                head.k.row(needle).tail(content) * (recipe.needle * root / (norm * norm));
            detail::at(head.needles, i) = needle;
        }
        for (Index c = 0; c < width; ++c) {
            const double scale = 1 / (1 + 0.25 * static_cast<double>(c));
            head.v(i, c) = (i == 0 ? 0.1 : 1.0) * (0.5 * scale + scale * random.normal());
        }
    }
    return head;
}

/// A head all of whose tokens are the same, x: every row is flat and every output is x. Attains theorem1_fixed.
/// Throws. `invalid_argument` unless tokens >= 1.
inline ProblemHead same_token_head(Index tokens, const Row<double>& x) {
    detail::require(tokens >= 1, "same_token_head", "tokens must be >= 1", tokens);
    const Matrix<double> rows = x.matrix().replicate(tokens, 1);
    return {rows, rows, rows, std::vector<Index>(static_cast<std::size_t>(tokens), -1)};
}

} // namespace problems
} // namespace v0_2
} // namespace attnscope
