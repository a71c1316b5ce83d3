// Distances of the top-N selections of every row of a head for a few N, from products of selected context
// vectors with all tokens.
#pragma once

#include <attnscope/normalizer/concept.hpp>
#include <attnscope/selection/top_n.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// The token vectors of a head as its selections need them: in panels, and in a unit (a power of two, so that
/// nothing is rounded) in which no square overflows.
template <Real T>
class PackedTokens {
public:
    using A = Accumulator<T>;
    template <Executor E>
    PackedTokens(const StoredRows<T>& x, E&& executor) : x_(x.read(0, x.rows(), room_)) {
        T longest = 0;
        for (Index i = 0; i < x.rows(); ++i)
            for (const T value : x_.row(i))
                if (std::abs(value) <= std::numeric_limits<T>::max())
                    longest = std::max(longest, std::abs(value));
        // The inverse of what is subnormal would overflow.
        unit_ = longest > T(0)
                    ? std::ldexp(T(1), -std::max(std::ilogb(longest), 2 - std::numeric_limits<T>::max_exponent))
                    : T(1);
        const Matrix<T> scaled = x_.map() * unit_;
        squares_.assign(
            static_cast<std::size_t>((x.rows() + Packet<T>::size - 1) / Packet<T>::size * Packet<T>::size),
            T(0));
        for (Index i = 0; i < x.rows(); ++i)
            detail::at(squares_, i) = static_cast<T>(scaled.row(i).template cast<A>().squaredNorm());
        panels_ = PackedRows<T>(MatrixView<T>(scaled), executor);
    }
    PackedTokens(const PackedTokens&) = delete;
    PackedTokens& operator=(const PackedTokens&) = delete;
    Index depth() const { return x_.cols(); }
    A unit() const { return A(unit_); } ///< what the vectors are multiplied by
    const T* panel(Index number) const { return panels_.panel(number); }
    const T* squares() const { return squares_.data(); }

    /// sum += weight x in the unit
    void add(Index key, T weight, Eigen::Matrix<A, 1, Eigen::Dynamic>& sum) const {
        const A factor = A(weight) * A(unit_);
        const T* const source = x_.row(key).data();
        A* const target = sum.data();
        for (Index c = 0; c < x_.cols(); ++c) target[c] += factor * A(source[c]);
    }

private:
    std::vector<T> room_; ///< for vectors that do not stand together in T
    MatrixView<T> x_;
    T unit_;
    PackedRows<T> panels_;
    std::vector<T> squares_;
};

/// The selections of some consecutive rows and their distances. A block of selected context vectors times some
/// panels of tokens stays in registers; the distances are taken where it is stored. One set is one selection of
/// one row. Everything is in the unit of the tokens until the end.
template <Real T>
class TileDistances {
public:
    using A = Accumulator<T>;
    using P = Packet<T>;

    /// Begins with `rows` rows whose keys lie in [begin, end).
    void start(const PackedTokens<T>& tokens, std::span<const Index> counts, Index rows, Index begin,
               Index end) {
        tokens_ = &tokens;
        counts_ = counts;
        first_panel_ = begin / P::size;
        panels_ = end > begin ? (end + P::size - 1) / P::size - first_panel_ : 0;
        stride_ = panels_ * P::size + 16;                          // not all rows in the same set of the cache
        weights_.resize(static_cast<std::size_t>(rows * stride_)); // hidden ones do not matter
        places_.assign(static_cast<std::size_t>(rows * stride_), hidden);
        selections_.assign(static_cast<std::size_t>(rows) * counts.size(), {});
        contexts_.setZero(rows * static_cast<Index>(counts.size()), tokens.depth());
        wide_contexts_.setZero(contexts_.rows(), contexts_.cols());
        sums_.resize(selections_.size() * static_cast<std::size_t>(P::size));
        totals_.assign(selections_.size(), A(0));
        rows_.resize(static_cast<std::size_t>(rows));
        for (RowSets& row : rows_) row.clear();
    }

    /// Where the weights of a row's keys first_key ... belong.
    RowOut<T> weights(Index row, Index first_key, std::size_t count) {
        return {weights_.data() + offset(row, first_key), count};
    }

    /// Takes in a row whose weights are where they belong; keys whose logit is -inf are not there.
    void set_row(Index row, Index first_key, RowIn<T> logits) {
        const RowIn<T> weights = this->weights(row, first_key, logits.size());
        T* const places = places_.data() + offset(row, first_key);
        RowSets& found = detail::at(rows_, row);
        const Index n = choose(logits, weights, places);
        for (const Index at : ranking_.order())
            found.keys.push_back(first_key + (n < size<T>(weights) ? detail::at(visible_, at) : at));
        sum_.setZero(tokens_->depth());
        std::size_t next = 0;
        for (std::size_t g = 0; g < counts_.size(); ++g) {
            for (; next < static_cast<std::size_t>(std::min(counts_[g], n)); ++next) {
                const Index at = found.keys[next] - first_key;
                tokens_->add(found.keys[next], detail::at(weights, at), sum_);
                places[at] = static_cast<T>(g);
            }
            found.reached += counts_[g] <= n;
            const Index set = row * static_cast<Index>(counts_.size()) + static_cast<Index>(g);
            wide_contexts_.row(set) = sum_;
            contexts_.row(set) = (sum_ * A(-2)).template cast<T>();
            const A length = sum_.squaredNorm();
            detail::at(selections_, set) = {row * stride_, static_cast<T>(g) + T(0.5), static_cast<T>(length),
                                            length < least ? infinity : static_cast<T>(close * length)};
        }
    }

    /// All distances of all rows. Blocks end at multiples of their size, and terms are added in the order of
    /// the keys, so that a distance does not depend on the rows beside it.
    void compute() {
        constexpr Index block = 48; // panels: more terms in a row would round too often
        for (Index first = 0, next = 0; first < panels_; first = next) {
            next = std::min(panels_, ((first_panel_ + first) / block + 1) * block - first_panel_);
            std::fill(sums_.begin(), sums_.end(), T(0));
            product_in_blocks<T>(
                contexts_.data(), contexts_.cols(), contexts_.rows(), contexts_.cols(), next - first,
                FactorPackets<T>{tokens_->panel(first_panel_ + first), P::size, tokens_->depth() * P::size},
                [&]<int width>(Index set, Index panel, std::integral_constant<int, width>, const T* products) {
                    add_panels<width>(set, first + panel, products);
                });
            for (std::size_t set = 0; set < totals_.size(); ++set)
                totals_[set] += A(reduce_add(P::load(sums_.data() + set * static_cast<std::size_t>(P::size))));
        }
        for (A& total : totals_) total /= tokens_->unit();
    }

    /// The keys of a row's largest selection by descending weight.
    std::span<const Index> keys(Index row) const { return detail::at(rows_, row).keys; }
    std::span<const A> distances(Index row) const {
        return {totals_.data() + static_cast<std::size_t>(row) * counts_.size(),
                detail::at(rows_, row).reached};
    }

private:
    static constexpr T infinity = std::numeric_limits<T>::infinity();
    /// Where a key stands: the number of the smallest selection that has it, or one of these.
    static constexpr T hidden = T(-1), other = infinity;
    /// Squares below this part of |s|^2 are taken anew from the difference.
    static constexpr A close = std::same_as<T, float> ? A(1) / 4 : A(2e-4);
    /// Below this |s|^2 squares may underflow.
    static constexpr A least = std::same_as<T, float> ? A(1e-28) : A(std::numeric_limits<T>::min());

    struct RowSets {
        std::vector<Index> keys;
        std::size_t reached = 0; ///< how many of the selections there are keys for
        void clear() { keys.clear(), reached = 0; }
    };
    struct Selection {
        Index row = 0; ///< where its weights begin
        T limit = 0;   ///< places below it are selected or hidden
        T length = 0;  ///< |s|^2
        T doubt = 0;   ///< the square from which on it is right
    };

    Index offset(Index row, Index key) const { return row * stride_ + key - first_panel_ * P::size; }

    /// Ranks the visible keys, whose number it returns.
    Index choose(RowIn<T> logits, RowIn<T> weights, T* places) {
        const bool all = row_range<T>(logits).min > -infinity;
        compact_.clear();
        visible_.clear();
        if (all)
            std::fill_n(places, weights.size(), other);
        else // hidden ones may weigh as much as visible ones do
            for (std::size_t i = 0; i < weights.size(); ++i) {
                if (!(logits[i] > -infinity)) continue;
                places[i] = other;
                compact_.push_back(weights[i]);
                visible_.push_back(static_cast<Index>(i));
            }
        const Index n = all ? size<T>(weights) : static_cast<Index>(compact_.size());
        ranking_.rank(all ? weights : RowIn<T>(compact_), std::min(n, counts_.empty() ? 0 : counts_.back()));
        return n;
    }

    /// |s|^2 - 2 p <s, x> + p^2 |x|^2 = |s|^2 + p (p |x|^2 - 2 <s, x>) of some panels.
    template <int width>
    void add_panels(Index set, Index panel, const T* products) {
        const Selection& selection = detail::at(selections_, set);
        const T* const weights = weights_.data() + selection.row + panel * P::size;
        const T* const places = places_.data() + selection.row + panel * P::size;
        const T* const squares = tokens_->squares() + (first_panel_ + panel) * P::size;
        const P limit = selection.limit, length = selection.length, least_sure = selection.doubt, zero = T(0),
                far = infinity;
        T* const sum = sums_.data() + set * P::size;
        auto total = P::load(sum);
#pragma GCC unroll 3
        for (int j = 0; j < width; ++j) {
            const Index at = j * P::size;
            const auto weight = P::load(weights + at), place = P::load(places + at);
            const auto inner = madd(weight, P::load(squares + at), P::load(products + at));
            const auto square = madd(weight, inner, length);
            if (any_below(select_below(place, limit, far, square), least_sure)) [[unlikely]]
                add_one_by_one(set, panel + j, square);
            else
                total += sqrt(select_below(place, limit, zero, square));
        }
        total.store(sum);
    }

    void add_one_by_one(Index set, Index panel, P packet) {
        const Selection& selection = detail::at(selections_, set);
        typename P::Elements squares;
        packet.store(squares.data());
        for (std::size_t i = 0; i < squares.size(); ++i) {
            const auto at = static_cast<std::size_t>(selection.row + panel * P::size) + i;
            if (places_[at] < selection.limit) continue;
            const Index key = (first_panel_ + panel) * P::size + static_cast<Index>(i);
            A distance = A(std::sqrt(squares[i]));
            if (squares[i] < selection.doubt) {
                sum_ = wide_contexts_.row(set);
                tokens_->add(key, -weights_[at], sum_);
                distance = sum_.norm();
                if (!(distance * distance > std::numeric_limits<A>::min())) distance = sum_.stableNorm();
            }
            detail::at(totals_, set) += distance;
        }
    }

    const PackedTokens<T>* tokens_ = nullptr;
    std::span<const Index> counts_;
    Index first_panel_ = 0, panels_ = 0, stride_ = 0;
    std::vector<T> weights_, places_; ///< [rows, stride]
    std::vector<Selection> selections_;
    Matrix<T> contexts_;      ///< -2 s, one for each selection
    Matrix<A> wide_contexts_; ///< s
    std::vector<T> sums_;     ///< a packet for each selection
    std::vector<A> totals_;
    std::vector<RowSets> rows_;
    std::vector<T> compact_;
    std::vector<Index> visible_;
    Eigen::Matrix<A, 1, Eigen::Dynamic> sum_;
    Ranking<T> ranking_;
};

} // namespace detail

/// The cumulative distances of the top-N selections of every row for some N, with the values as token
/// vectors, under any normaliser.
/// Formula. d(N) = sum over the others of |s_N - y_i|; |s - y|^2 = |s|^2 - 2 p <s, x> + p^2 |x|^2 in T, taken
/// anew from the difference in the accumulator scalar where it is below |s|^2/4 (float) or 2e-4 |s|^2:
/// relative error of d(N) in float about 1e-6, for parallel vectors of width 256 7e-6.
/// Shapes and units. `counts` ascend and are >= 1. Gives visit(query, keys, distances): distances[g] is
/// d(counts[g]), for the counts up to the number of visible keys; `keys` are the min(counts.back(), visible)
/// keys of the largest weights, descending, ties by smaller key. Both are gone when the visitor returns; it
/// is called by several threads at once if the executor has them, once for each query.
/// Special rows. Rows that are not normal come with neither. Values that are not finite leave NaN or
/// infinity.
/// Cost. O(pairs d) for each N; `scan_distance_curves`, O(pairs) for each N up to the largest, is cheaper for
/// more than about 16/d of those. Memory O(keys d), no Gram matrix, and as `scan_rows`.
/// Throws. `invalid_argument` for a head without values or counts that do not ascend from 1.
template <HeadLike H, class N, class Visit, Executor E = Sequential>
requires Normalizer<N, detail::ScalarOfHead<H>>
ScanExtent scan_distances(const H& head, std::span<const Index> counts, const N& normalizer, const Visit& visit,
                          const Mask& mask = {}, const TileOptions& options = {}, E&& executor = {}) {
    using T = detail::ScalarOfHead<H>;
    const StoredHead<T> stored(head);
    detail::require(head.has_values(), "scan_distances", "the head needs values");
    for (std::size_t g = 0; g < counts.size(); ++g)
        detail::require(counts[g] > (g > 0 ? counts[g - 1] : 0), "scan_distances",
                        "the N must ascend and be >= 1", counts[g]);
    const detail::PackedTokens<T> tokens(stored.v(), executor);
    detail::WorkspacePool<detail::TileDistances<T>> workspaces;
    std::vector<Index> all(static_cast<std::size_t>(head.queries()));
    std::iota(all.begin(), all.end(), Index(0));
    const auto asked = detail::take_scale(stored, options);
    return detail::scan_row_tiles<T>(
        std::span<const Index>(all), head.keys(), ProductTiles<T>(asked.head, executor),
        [&](Index query, Index key, TileOut<T> logits) {
            workspaces.use([&](detail::TileDistances<T>& tile) {
                tile.start(tokens, counts, logits.rows(), key, key + logits.cols());
                for (Index i = 0; i < logits.rows(); ++i) {
                    const auto row = detail::visible_row<T>(mask.visible(query + i, head.keys()), key,
                                                            logits.data() + i * logits.outerStride());
                    const RowIn<T> z = row.logits;
                    if (!z.empty() &&
                        normalizer.apply(z, tile.weights(i, row.first, z.size())) == RowStatus::normal)
                        tile.set_row(i, row.first, z);
                }
                tile.compute();
                for (Index i = 0; i < logits.rows(); ++i) visit(query + i, tile.keys(i), tile.distances(i));
            });
        },
        mask, asked.options, executor);
}

} // namespace v0_2
} // namespace attnscope
