// What the keys that somebody else selected keep of every row of a head, and what is the selector's fault.
#pragma once

#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/row/softmax_row.hpp>
#include <attnscope/selection/separability.hpp>
#include <attnscope/selection/theorem1_fixed.hpp>
#include <attnscope/selector/row_selectors.hpp>
#include <attnscope/streaming/row_scan.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Options of `scan_selection`.
struct SelectionScanOptions {
    TileOptions tiles = {};
    /// Also `SelectionFigures::geometry`, from the values: O(d) in double for every visible key.
    bool geometry = false;
    Metric metric = Metric::euclidean;     ///< of the separability
    Reading reading = Reading::cumulative; ///< of the distance
    std::optional<double> radius = {};     ///< of the separability, as there
    /// Of a learned sink, a key without value beside those of every row, which every selection keeps. Before the
    /// temperature.
    std::optional<double> sink_logit = {};
};

/// What a set of keys looks like among the values, as P asks: its weights are those of the whole row.
template <Real A>
struct SelectionGeometry {
    A distance = 0;              ///< d(I), as `selection_distance`
    Interval<A> distance_limits; ///< of P's Theorem 1 for that set: `theorem1_fixed_range`
    Separability<A> separability;
};

/// What a set I of N keys keeps of one row of softmax weights p over the keys that the query sees.
/// Special rows. All figures of a row that is not normal are NaN, its counts 0. Output errors are NaN without values, and
/// where the selected weigh nothing: nothing can be divided by 0.
template <Real A>
struct SelectionFigures {
    static constexpr A nan = std::numeric_limits<A>::quiet_NaN();

    RowStatus status = RowStatus::empty;
    Index visible = 0;     ///< keys that the query sees
    Index selected = 0;    ///< N
    A kept = nan;          ///< A_I, the mass of the selected: the recall of mass
    A lost = nan;          ///< tau, that of the others, added up from them
    A selector_loss = nan; ///< how much more the N best keys keep: the selector's fault
    A budget_loss = nan;   ///< what they lose too: the fault of N. selector_loss + budget_loss = lost
    bool top_key = false;  ///< is a key with the largest logit selected?
    Index found = 0;  ///< selected keys among the N best (of those that are visible); ties in favour of the set
    Index missed = 0; ///< how many of the N best are not selected

    A output_error = nan;   ///< |o - o_I|, o_I = (1/A_I) sum_I p v: the weights divided by their sum
    A relative_error = nan; ///< |o - o_I|/|o|; 0/0 = 0
    A output_limit = nan;   ///< certified: tau d1 >= |o - o_I|, d1 from the distances of values from their mean
    A unnormalised_error = nan; ///< |o - sum_I p v|: the weights as they are

    std::optional<SelectionGeometry<A>> geometry; ///< if asked for, of normal rows with values
    Index inversions = 0; ///< with the geometry: pairs of a selected key and another with a larger logit

    bool normal() const { return status == RowStatus::normal; }
    A total_variation() const { return lost; } ///< TV(p_I, p), p_I = p on I, divided by its sum
    /// KL(p_I || p) = -log A_I.
    A kl_nats() const { return lost < A(0.5) ? -std::log1p(-lost) : -std::log(kept); }
    /// Share of the N best keys that are selected; 1 where N = 0.
    A top_recall() const {
        return !normal() ? nan : found + missed == 0 ? A(1) : A(found) / static_cast<A>(found + missed);
    }
};

/// What a selector's sets keep of all rows.
template <Real A>
struct SelectionScan : ScanExtent {
    std::vector<SelectionFigures<A>> rows; ///< one for each query

    /// The mean of figure(row) over the normal rows; NaN if there are none.
    template <class Figure>
    double mean(const Figure& figure) const {
        double sum = 0, count = 0;
        for (const SelectionFigures<A>& row : rows)
            if (row.normal()) {
                sum += static_cast<double>(std::invoke(figure, row));
                ++count;
            }
        return sum / count;
    }
};

namespace detail {

/// The values of a head as a selection needs them.
template <Real T>
class SelectableValues {
public:
    using A = Accumulator<T>;
    explicit SelectableValues(const StoredRows<T>& values) : view_(values.read(0, values.rows(), room_)) {
        if (view_.cols() == 0) return;
        const auto wide = view_.map().template cast<A>();
        finite_ = view_.map().allFinite();
        const Eigen::Matrix<A, 1, Eigen::Dynamic> mean = wide.colwise().mean();
        for (Index key = 0; key < view_.rows(); ++key) radii_.push_back((wide.row(key) - mean).norm());
        sink_radius_ = mean.norm();
        by_radius_.resize(radii_.size());
        std::iota(by_radius_.begin(), by_radius_.end(), Index(0));
        if (finite_)
            std::sort(by_radius_.begin(), by_radius_.end(),
                      [&](Index a, Index b) { return radius(a) > radius(b); });
    }
    SelectableValues(const SelectableValues&) = delete;
    SelectableValues& operator=(const SelectableValues&) = delete;

    const MatrixView<T>& view() const { return view_; }
    bool has_width() const { return view_.cols() > 0; }
    bool finite() const { return finite_; }
    A radius(Index key) const { return detail::at(radii_, key); }   ///< |v - mean|
    A sink_radius() const { return sink_radius_; }                  ///< of the value 0
    std::span<const Index> by_radius() const { return by_radius_; } ///< keys, the farthest from the mean first

private:
    std::vector<T> room_;
    MatrixView<T> view_;
    std::vector<A> radii_;
    std::vector<Index> by_radius_;
    A sink_radius_ = 0;
    bool finite_ = true;
};

/// Tiles of logits and what a selector takes of them.
template <Real T, class Selector>
class SelectionTileScan {
public:
    using A = Accumulator<T>;
    using Figures = SelectionFigures<A>;

    SelectionTileScan(const Selector& selector, const SelectableValues<T>& values, const Mask& mask, Index keys,
                      const SelectionScanOptions& options)
        : selector_(selector), values_(values), mask_(mask), keys_(keys), options_(options) {
        if (!options.sink_logit) return;
        const double sink = *options.sink_logit / options.tiles.temperature;
        require(sink < std::numeric_limits<double>::infinity(), "scan_selection",
                "a sink logit must be finite or -inf, over the temperature too", sink);
        sink_ = static_cast<A>(sink);
    }

    void operator()(Index query, Index first_key, TileOut<T> tile, std::span<Figures> figures) {
        workspaces_.use([&](Workspace& space) {
            const Index rows = tile.rows(), width = values_.view().cols();
            space.rows.assign(static_cast<std::size_t>(rows), {});
            space.last_query.resize(static_cast<std::size_t>(keys_), Index(-1));
            for (Index i = 0; i < rows; ++i)
                look_at(query + i, first_key, tile, i, space, detail::at(figures, i));
            if (!values_.has_width()) return;
            space.others.setZero(rows, width);
            add_others(first_key, tile, space);
            for (Index i = 0; i < rows; ++i)
                if (detail::at(figures, i).normal())
                    finish(detail::at(space.rows, i), space.others.row(i), detail::at(figures, i));
        });
    }

private:
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;
    /// Of one row, until the values of the others are added up. Weights are e^{z - m}.
    struct RowSums {
        A all = 0;   ///< of weights, with the sink
        A tail = 0;  ///< of those of the others
        A d1 = 0;    ///< at least |v_i - v_j|, i not selected, j selected
        Vector mean; ///< of the selected and the sink, by weight; empty where they have none
    };
    struct Workspace {
        std::vector<RowSums> rows;
        Matrix<A> others;              ///< sum of weight v over the others
        std::vector<Index> last_query; ///< of each key, that which selected it last
        Ranking<T> ranking;
        std::vector<T> kept_logits; ///< in the order of the selected
        std::vector<T> kept_weights;
        // Of the geometry.
        std::vector<T> sorted, weights;
        std::vector<Index> places, selected;
        Matrix<T> vectors;
        SelectedSet<T> set;
    };
    static constexpr T hidden = -std::numeric_limits<T>::infinity();

    void look_at(Index query, Index first_key, TileOut<T>& tile, Index i, Workspace& space, Figures& figures) {
        const KeyRanges visible = mask_.visible(query, keys_);
        T* const begin = tile.data() + i * tile.outerStride();
        const VisibleRow<T> row = visible_row<T>(visible, first_key, begin);
        const auto use = [&](const auto& selected) {
            take(query, visible, row, selected, space);
            measure(query, visible, row, std::span<const Index>(selected), space, detail::at(space.rows, i),
                    figures);
        };
        if constexpr (std::invocable<const Selector&, const ScoredRow<T>&>)
            use(selector_(ScoredRow<T>{query, row.first, RowIn<T>(row.logits)}));
        else
            use(selector_(query));
        // The product with the values sees weights of the others, of normal rows, and zeros.
        T* const end = begin + tile.cols();
        T* const own = row.logits.empty() ? begin : row.logits.data();
        T* const own_end = figures.normal() ? own + row.logits.size() : own;
        std::fill(begin, own, T(0));
        std::fill(own_end, end, T(0));
    }

    /// Every key of a row must be one that it sees, once. Marks them in `last_query` and takes their logits.
    template <class Keys>
    void take(Index query, const KeyRanges& visible, const VisibleRow<T>& row, const Keys& selected,
              Workspace& space) const {
        const std::span<const Index> keys(selected);
        space.kept_logits.resize(keys.size());
        Index* const last_query = space.last_query.data();
        const T* const logits = row.logits.data();
        for (std::size_t i = 0; i < keys.size(); ++i) {
            const Index key = keys[i];
            require(visible.contains(key), "scan_selection",
                    "a selected key must be one that the query sees: query, key", query, key);
            require(std::exchange(last_query[key], query) != query, "scan_selection",
                    "a key must be selected once: query, key", query, key);
            space.kept_logits[i] = logits[key - row.first];
        }
    }

    /// Everything but what comes from the values of the others, whose weights it leaves in place of the logits, 0 of the
    /// selected.
    void measure(Index query, const KeyRanges& visible, const VisibleRow<T>& row,
                 std::span<const Index> selected, Workspace& space, RowSums& sums, Figures& figures) {
        const RowOut<T> z = row.logits;
        const auto [lowest, top] = row_range<T>(RowIn<T>(z));
        figures.status = std::isfinite(top) ? RowStatus::normal : classify<T>(RowIn<T>(z));
        if (!figures.normal()) return;
        figures.selected = static_cast<Index>(selected.size());
        figures.visible = static_cast<Index>(z.size());
        if (lowest == hidden) figures.visible -= std::count(z.begin(), z.end(), hidden);
        const Index best = std::min(figures.selected, figures.visible);
        const auto [least, larger] = space.ranking.nth_largest(RowIn<T>(z), best);
        count_found(top, least, best - larger, space.kept_logits, figures);
        figures.missed = best - figures.found;
        if (options_.geometry) prepare_geometry(query, row, space, figures);

        // Beside the largest of all, the sink included, so that no weight overflows.
        const A shift = std::max(A(top), sink_);
        const A total = exp_sum<true, T>(RowIn<T>(z), static_cast<T>(shift), T(1), z.data());
        if (!(total == total)) { // the maximum has hidden a NaN
            figures = {};
            figures.status = RowStatus::nan;
            return;
        }
        const A best_mass = mass_of_best(RowIn<T>(z), best, least, shift);
        const A selected_mass = add_selected(row, shift, selected, space, sums);
        const A kept = selected_mass + std::exp(sink_ - shift);
        if (options_.geometry) keep_weights(RowIn<T>(z), space);
        for (const Index key : selected) z.data()[key - row.first] = T(0);
        sums.tail =
            sum_lanes<T>(static_cast<Index>(z.size()), [&](const auto& lane) { return lane(z.data(), T(0)); });
        sums.all = kept + sums.tail;
        figures.kept = kept / sums.all;
        figures.lost = sums.tail / sums.all;
        figures.selector_loss = std::clamp((best_mass - selected_mass) / sums.all, A(0), figures.lost);
        figures.budget_loss = figures.lost - figures.selector_loss;
        if (!values_.finite()) {
            sums.d1 = Figures::nan;
            return;
        }
        sums.d1 = reach_of_others(query, visible, figures, space) + reach_of(selected);
        if (options_.geometry && values_.has_width()) add_geometry(row.first, sums, selected, space, figures);
    }

    /// The sum of the `best` largest weights, the least of them of the logit `least`. Ties of weights among different
    /// logits weigh the same.
    static A mass_of_best(RowIn<T> weights, Index best, T least, A shift) {
        if (best == 0) return A(0);
        T limit;
        exp_sum<true, T>(RowIn<T>(&least, 1), static_cast<T>(shift), T(1), &limit);
        const Packet<T> most = limit, none = T(0);
        Index larger = 0;
        const A mass = sum_lanes<T>(static_cast<Index>(weights.size()), [&](const auto& lane) {
            const auto weight = lane(weights.data(), T(0));
            larger += Packet<T>::size - std::popcount(mask_not_below(most, weight));
            return select_below(most, weight, weight, none);
        });
        return mass + static_cast<A>(best - larger) * std::exp(A(least) - shift);
    }
    /// Which of the best keys are selected: those above the least of them, and of those that tie with it no more than
    /// are among the best.
    static void count_found(T top, T least, Index best_ties, std::span<const T> kept, Figures& figures) {
        std::uint32_t found = 0, ties = 0, tops = 0;
        for (const T x : kept) {
            found += x > least;
            ties += x == least;
            tops += x == top;
        }
        figures.top_key = tops > 0;
        figures.found = static_cast<Index>(found) + std::min(static_cast<Index>(ties), best_ties);
    }

    /// The mass of the selected, and the mean of their values, the sink's 0 among them. Relative to their own largest
    /// weight where that is far below all weights.
    A add_selected(const VisibleRow<T>& row, A shift, std::span<const Index> selected, Workspace& space,
                   RowSums& sums) const {
        const A own = std::max(sink_, A(row_max<T>(space.kept_logits)));
        if (!(own > -std::numeric_limits<A>::infinity())) return A(0);
        constexpr A far = 60;
        const bool relative = shift - own > far;
        const A sink = std::exp(sink_ - (relative ? own : shift));
        space.kept_weights.resize(selected.size());
        T* const weights = space.kept_weights.data();
        for (std::size_t i = 0; i < selected.size(); ++i)
            weights[i] = relative ? static_cast<T>(std::exp(A(space.kept_logits[i]) - own))
                                  : row.logits.data()[selected[i] - row.first];
        const A mass = sum_lanes<T>(static_cast<Index>(selected.size()),
                                    [&](const auto& lane) { return lane(weights, T(0)); });
        if (values_.has_width()) {
            sums.mean.setZero(values_.view().cols());
            add_values(selected, space.kept_weights, sums.mean);
            sums.mean /= mass + sink;
        }
        return relative ? mass * std::exp(own - shift) : mass;
    }

    /// Adds weight v over the selected; sums of 64 keys in T.
    void add_values(std::span<const Index> selected, std::span<const T> weights, Vector& sum) const {
        if (!values_.finite()) { // a product with a weight of 0 would keep NaN and infinity alive
            for (std::size_t i = 0; i < selected.size(); ++i)
                if (weights[i] != T(0)) sum += A(weights[i]) * value(selected[i]);
            return;
        }
        constexpr std::size_t block = 64;
        using P = Packet<T>;
        constexpr Index packets = 4;
        const MatrixView<T>& v = values_.view();
        const Index width = v.cols(), together = width / (packets * P::size) * (packets * P::size);
        for (std::size_t first = 0; first < selected.size(); first += block) {
            const std::size_t end = std::min(selected.size(), first + block);
            Index c = 0;
            for (; c < together; c += packets * P::size) {
                P part[std::size_t(packets)];
                unrolled<packets>([&](auto k) ATTNSCOPE_DETAIL_INLINE_LAMBDA { part[k] = T(0); });
                for (std::size_t i = first; i < end; ++i) {
                    const P weight = weights[i];
                    const T* const x = v.row(selected[i]).data() + c;
                    unrolled<packets>([&](auto k) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
                        part[k] = madd(weight, P::load(x + k * P::size), part[k]);
                    });
                }
                std::array<T, static_cast<std::size_t>(packets * P::size)> stored;
                unrolled<packets>(
                    [&](auto k) ATTNSCOPE_DETAIL_INLINE_LAMBDA { part[k].store(stored.data() + k * P::size); });
                for (Index j = 0; j < packets * P::size; ++j) sum[c + j] += A(detail::at(stored, j));
            }
            for (; c < width; ++c) {
                T part = 0;
                for (std::size_t i = first; i < end; ++i) part += weights[i] * v.row(selected[i]).data()[c];
                sum[c] += A(part);
            }
        }
    }

    /// The largest distance of another visible value from the mean of all.
    A reach_of_others(Index query, const KeyRanges& visible, const Figures& figures,
                      const Workspace& space) const {
        if (figures.selected == visible.count()) return A(0);
        const auto other = [&](Index key) { return detail::at(space.last_query, key) != query; };
        // Among the farthest of all there is mostly one; else those of the row are looked through.
        constexpr std::size_t tried = 64;
        for (const Index key : values_.by_radius().first(std::min(tried, values_.by_radius().size())))
            if (visible.contains(key) && other(key)) return values_.radius(key);
        A most = 0;
        if (values_.has_width())
            visible.for_each(
                [&](Index key) { most = other(key) ? std::max(most, values_.radius(key)) : most; });
        return most;
    }
    A reach_of(std::span<const Index> selected) const {
        A most = sink_ > -std::numeric_limits<A>::infinity() ? values_.sink_radius() : A(0);
        if (values_.has_width())
            for (const Index key : selected) most = std::max(most, values_.radius(key));
        return most;
    }

    /// Where the visible keys are, and pairs of a selected key and another with a larger logit.
    void prepare_geometry(Index query, const VisibleRow<T>& row, Workspace& space, Figures& figures) const {
        space.places.clear();
        for (std::size_t i = 0; i < row.logits.size(); ++i)
            if (row.logits[i] > hidden) space.places.push_back(static_cast<Index>(i));
        space.sorted.assign(space.kept_logits.begin(), space.kept_logits.end());
        if (space.sorted.empty()) return;
        std::sort(space.sorted.begin(), space.sorted.end());
        for (const Index place : space.places) {
            const T own = detail::at(row.logits, place);
            if (!(own > space.sorted.front()) || detail::at(space.last_query, row.first + place) == query)
                continue;
            figures.inversions +=
                std::lower_bound(space.sorted.begin(), space.sorted.end(), own) - space.sorted.begin();
        }
    }
    static void keep_weights(RowIn<T> weights, Workspace& space) {
        space.weights.clear();
        for (const Index place : space.places) space.weights.push_back(detail::at(weights, place));
    }
    void add_geometry(Index first, const RowSums& sums, std::span<const Index> selected, Workspace& space,
                      Figures& figures) const {
        const Index n = static_cast<Index>(space.places.size());
        for (T& weight : space.weights) weight = static_cast<T>(A(weight) / sums.all);
        const bool together = n == 0 || space.places.back() - space.places.front() == n - 1;
        const MatrixView<T>& v = values_.view();
        const Index begin = first + (n == 0 ? 0 : space.places.front());
        if (!together) {
            space.vectors.resize(n, v.cols());
            for (Index i = 0; i < n; ++i)
                space.vectors.row(i) = v.map().row(first + detail::at(space.places, i));
        }
        space.selected.clear();
        for (const Index key : selected) {
            const auto at = std::lower_bound(space.places.begin(), space.places.end(), key - first);
            // What an additive mask hides is no key of the row.
            if (at != space.places.end() && *at == key - first)
                space.selected.push_back(at - space.places.begin());
        }
        const MatrixView<T> x =
            together ? MatrixView<T>(v.data() + begin * v.outer_stride(), n, v.cols(), v.outer_stride())
                     : MatrixView<T>(space.vectors);
        SelectionGeometry<A> geometry;
        space.set.assign(RowIn<T>(space.weights), x, space.selected);
        FixedSetGeometry<A> made_of = geometry_without_spread(space.set);
        // Without a selected key Theorem 1 says nothing; the lengths do.
        made_of.spread = space.selected.empty() ? std::numeric_limits<A>::infinity() : sums.d1;
        geometry.distance = selection_distance(space.set, options_.reading);
        geometry.distance_limits = theorem1_fixed_range(space.set, made_of, options_.reading);
        const auto radius = options_.radius ? std::optional<A>(static_cast<A>(*options_.radius)) : std::nullopt;
        if (options_.metric != Metric::euclidean)
            space.set.assign(RowIn<T>(space.weights), x, space.selected, options_.metric);
        geometry.separability = attnscope::separability(space.set, radius);
        figures.geometry = geometry;
    }

    /// Adds weight v over the others of all rows.
    void add_others(Index first_key, const TileOut<T>& tile, Workspace& space) const {
        const Index key_tile = options_.tiles.key_tile;
        if (values_.finite()) {
            for (Index at = 0; at < tile.cols(); at += key_tile)
                add_product<T>(tile.data() + at, tile.outerStride(), tile.rows(),
                               std::min(key_tile, tile.cols() - at), values_.view(), first_key + at,
                               space.others.data());
            return;
        }
        // A product with a weight of 0 would keep NaN and infinity alive.
        for (Index i = 0; i < tile.rows(); ++i)
            for (Index j = 0; j < tile.cols(); ++j)
                if (tile(i, j) != T(0)) space.others.row(i) += A(tile(i, j)) * value(first_key + j);
    }

    template <class Others>
    static void finish(const RowSums& sums, const Others& others, Figures& figures) {
        // Means first: they are as long as values are, however little weighs on them.
        const bool nothing_lost = sums.tail == A(0);
        const Vector mean = nothing_lost ? Vector::Zero(others.size()) : Vector(others / sums.tail);
        figures.unnormalised_error = figures.lost * mean.norm();
        if (sums.mean.size() == 0) return;
        figures.output_error = nothing_lost ? A(0) : figures.lost * (mean - sums.mean).norm();
        const A output = (figures.lost * mean + figures.kept * sums.mean).norm();
        figures.relative_error = figures.output_error == A(0) ? A(0) : figures.output_error / output;
        figures.output_limit = nothing_lost ? A(0) : figures.lost * sums.d1;
    }

    auto value(Index key) const {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(values_.view().row(key).data(), 1,
                                                                     values_.view().cols())
            .template cast<A>();
    }

    const Selector& selector_;
    const SelectableValues<T>& values_;
    const Mask& mask_;
    Index keys_;
    const SelectionScanOptions& options_;
    A sink_ = -std::numeric_limits<A>::infinity();
    WorkspacePool<Workspace> workspaces_;
};

template <class Selector, class T>
concept KeysOfRow = requires(const Selector& selector, const ScoredRow<T>& row) {
    { std::span<const Index>(selector(row)) };
} || requires(const Selector& selector) {
    { std::span<const Index>(selector(Index(0))) };
};

} // namespace detail

/// Who selects keys: selector(query), or selector(`ScoredRow`) for one that looks at the logits, gives the keys of a query
/// as a vector or span. Called once for each query, by several threads at once if the executor has them.
template <class S, class T>
concept Selector = detail::KeysOfRow<S, T>;

/// What selected keys keep of rows whose logits a source gives: see `scan_selection`.
/// Shapes and units. values [keys, d_v], or without columns: then what needs them is NaN.
/// Throws. `invalid_argument` as there, and when sizes do not fit each other.
template <class Asked = void, class Source, class S, Executor E = Sequential,
          Real T = detail::TileScalar<Asked, Source>>
requires Selector<S, T>
SelectionScan<Accumulator<T>> scan_selection_of(Index queries, Index keys, const Source& source,
                                                const StoredRows<std::type_identity_t<T>>& values,
                                                const S& selector, const Mask& mask = {},
                                                const SelectionScanOptions& options = {}, E&& executor = {}) {
    detail::require(queries >= 0, "scan_selection", "queries must be >= 0", queries);
    detail::require(!values.has_data() || values.rows() == keys, "scan_selection",
                    "values must have one row for each key", values.rows(), keys);
    detail::require(!options.geometry || values.has_data(), "scan_selection",
                    "the geometry of a selection needs values");
    SelectionScan<Accumulator<T>> result;
    result.rows.resize(static_cast<std::size_t>(queries));
    std::vector<Index> all(result.rows.size());
    std::iota(all.begin(), all.end(), Index(0));
    const detail::SelectableValues<T> known(values);
    detail::SelectionTileScan<T, S> scan(selector, known, mask, keys, options);
    static_cast<ScanExtent&>(result) = detail::scan_row_tiles<T>(
        std::span<const Index>(all), keys, source,
        [&](Index query, Index key, TileOut<T> tile) {
            scan(query, key, tile,
                 std::span(result.rows)
                     .subspan(static_cast<std::size_t>(query), static_cast<std::size_t>(tile.rows())));
        },
        mask, options.tiles, executor);
    detail::for_each_missing(result, [&](Index row) { detail::at(result.rows, row).status = RowStatus::nan; });
    return result;
}

/// What a selector's keys keep of every row of softmax of a head: `SelectionFigures`. Against the best keys of the same
/// number, so that the loss is split into the selector's fault and the budget's.
/// Formula. lost = TV(p_I, p) = 1 - A_I; KL(p_I || p) = -log A_I; |o - o_I| <= lost d1 (`truncation_output`) with d1 at most
/// the sum of the largest distances of the selected and of the other values from the mean of all values. Masses and
/// outputs are sums of weights that are computed in T, of others as of selected: a small loss keeps its digits.
/// Shapes and units. One element of `rows` for each query. Masses in [0, 1], errors in units of v.
/// Special rows. Of a row that is not normal, or that was not reached, figures are NaN. An empty set keeps nothing: lost = 1,
/// KL = inf, output error NaN. A selected key whose logit is -inf weighs nothing.
/// Cost. O(queries keys (d + d_v)), a product and an exponential for each logit, and O(N d_v) for each row, in one pass; the
/// geometry adds what `SelectionScanOptions` says. Memory O(threads tile keys + queries), and of the sets what the selector
/// needs.
/// Throws. `invalid_argument` that names the query, for a selected key that it does not see or that is there twice.
/// Example, of the keys that a sliding window keeps:
///     const auto kept = scan_selection(head, SinkWindow(4, 252, Mask::causal(), head.keys()), Mask::causal());
///     const double loss = kept.mean(&SelectionFigures<double>::lost);
template <HeadLike H, class S, Executor E = Sequential, Real T = detail::ScalarOfHead<H>>
requires Selector<S, T>
SelectionScan<Accumulator<T>> scan_selection(const H& head, const S& selector, const Mask& mask = {},
                                             const SelectionScanOptions& options = {}, E&& executor = {}) {
    const StoredHead<T> stored(head);
    auto asked = detail::take_scale(stored, options.tiles);
    SelectionScanOptions own = options;
    own.tiles = asked.options;
    return scan_selection_of(stored.queries(), stored.keys(), ProductTiles<T>(asked.head, executor), stored.v(),
                             selector, mask, own, executor);
}

} // namespace v0_2
} // namespace attnscope
