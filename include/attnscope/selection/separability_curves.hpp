// Precision and recall of the top-N selections of a row for every N at once.
#pragma once

#include <attnscope/detail/lanes.hpp>
#include <attnscope/selection/separability.hpp>

#include <bit>
#include <numeric>

namespace attnscope {
inline namespace v0_2 {

/// `Separability` of the top-N selections for some N in ascending order, one element for each, by Euclidean
/// distance. The geometric recall N_s/N of P (10) is `recall`.
template <Real A>
struct SeparabilityCurve {
    std::vector<A> nearest_other;     ///< min over the others of D_j; +inf if there are none
    std::vector<A> farthest_selected; ///< max over the selected of D_i
    std::vector<A> precision;         ///< N/(N + #{others: D_j <= farthest selected})
    std::vector<A> recall;            ///< #{selected: D_i < nearest other}/N
    std::vector<A> f_score;           ///< harmonic mean of both
};

/// The figures of many N from the Gram matrix of the token vectors.
/// Formula. D_i^2 = |s_N|^2 + |y_i|^2 - 2 p_i c_i, c_i = <s_N, x_i>, is compared without |s_N|^2, which is
/// alike for all keys. c_i is kept in double; the squares of float rows are compared in float. Wherever that leaves
/// open on which side of a limit a key lies (exact ties are no such case when they weigh nothing), that N is counted in
/// double, and where double leaves it open, by `separability`, so that the counts are the same.
/// Inversions need the order of all keys and are left to it.
/// Cost. O(n) for each N up to the largest, about a tenth of it for those that are not asked for, and O(n d) for
/// any run of them; O(n d + n log n) for those that are counted apart; memory O(n) beyond the curve, kept from row to row.
template <Real T>
class SeparabilityCurves {
public:
    using A = Accumulator<T>;

    /// The figures for N = 1 ... n_max; arguments as in `DistanceCurves`.
    /// Special rows. A token or weight that is not finite, or whose square is not, leaves every figure NaN.
    /// Throws. `invalid_argument` when sizes do not fit.
    const SeparabilityCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                        std::span<const Index> order, Index n_max) {
        detail::require(n_max >= 0, "SeparabilityCurves", "n_max must be in [0, n]", n_max, p.size());
        all_.resize(static_cast<std::size_t>(n_max));
        std::iota(all_.begin(), all_.end(), Index(1));
        return compute(p, x, gram, order, std::span<const Index>(all_));
    }

    /// The same for some N.
    /// Throws. `invalid_argument` also unless `counts` ascend within [1, n].
    const SeparabilityCurve<A>& compute(RowIn<T> p, MatrixView<T> x, const Matrix<A>& gram,
                                        std::span<const Index> order, std::span<const Index> counts) {
        const Index n = detail::size<T>(p);
        detail::require(x.rows() >= n && gram.rows() >= n && gram.cols() >= n &&
                            static_cast<Index>(order.size()) == n,
                        "SeparabilityCurves", "x, gram and order must cover the weights", x.rows(), gram.rows(),
                        order.size(), n);
        for (std::size_t at = 0; at < counts.size(); ++at)
            detail::require(counts[at] > (at > 0 ? counts[at - 1] : 0) && counts[at] <= n, "SeparabilityCurves",
                            "the N must ascend in [1, n]", counts[at], n);
        constexpr A nan = std::numeric_limits<A>::quiet_NaN();
        for (auto* figure : {&curve_.nearest_other, &curve_.farthest_selected, &curve_.precision,
                             &curve_.recall, &curve_.f_score})
            figure->assign(counts.size(), nan);
        p_ = p;
        x_ = MatrixView<T>(x.data(), n, x.cols(), x.outer_stride());
        order_ = order;
        if (counts.empty() || !begin(gram)) return curve_;
        s_.setZero(x.cols());
        sums_.resize(static_cast<std::size_t>(steps_at_once * x.cols()));
        A selected_length = 0;
        const Index last = counts.back();
        bool wide = false; // whether wide_ is known
        for (Index rank = 0, to = 0; rank < last;) {
            const auto select = [&](Index key) {
                s_ += detail::at(weights_, key) * vector(key);
                selected_length += detail::at(lengths_, key);
                ++rank;
            };
            // So many keys at once that a product of s with all x costs less than they do.
            const bool jump = detail::at(counts, to) - rank > x.cols() / 2 + 1;
            if (jump) {
                while (rank + 1 < detail::at(counts, to)) {
                    const Index key = detail::at(order, rank);
                    select(key);
                    if (in_float_) float_keys_.select(key);
                    keys_.select(key);
                }
                if (!wide) wide_ = x_.map().template cast<A>();
                wide = true;
            }
            steps_.clear();
            while (rank < last && std::ssize(steps_) < (jump ? 1 : steps_at_once)) {
                Step step;
                step.key = detail::at(order, rank);
                select(step.key);
                step.count = rank;
                step.weight = detail::at(weights_, step.key) / unit_x_ / unit_y_;
                step.selected_length = selected_length / unit_y_;
                step.s = sums_.data() + std::ssize(steps_) * x.cols();
                Eigen::Map<Vector>(step.s, x.cols()) = s_;
                step.length = s_.norm();
                if (detail::at(counts, to) == step.count) step.to = to++;
                steps_.push_back(step);
            }
            if (jump) { // the whole c, to which the step has nothing to add
                steps_[0].weight = 0;
                Eigen::Map<Vector>(before_.data(), n).noalias() = (s_ / unit_x_ / unit_y_) * wide_.transpose();
            }
            if constexpr (narrows)
                if (in_float_) evaluate(float_keys_, add_inner(gram, float_inner_), gram);
            if (!in_float_) evaluate(keys_, add_inner(gram, inner_), gram);
            before_.swap(after_);
        }
        return curve_;
    }

private:
    static constexpr A infinity = std::numeric_limits<A>::infinity();
    /// As many N go over the keys together, so that each c_i is loaded and stored once for them.
    static constexpr Index steps_at_once = 16;
    static constexpr bool narrows = std::same_as<T, float> && detail::can_narrow;
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;

    /// N = count, whose last key is `key`; `to`: element of the curve, -1 if it is not asked for. In units of the longest
    /// x and y but for s and its length.
    struct Step {
        Index key = 0, count = 0, to = -1;
        A weight = 0, selected_length = 0;
        A length = 0; ///< |s|
        A* s = nullptr;
    };

    /// What is compared, in R and in units of the longest y: packets of |y|^2, -2p, |y| and the sides of some keys, one
    /// behind the other, then those of the next.
    template <class R>
    struct Keys {
        using P = detail::Packet<R>;
        static constexpr Index step = 4 * P::size;
        /// +inf for selected keys and 0 for others.
        static P chosen(const R* packets) { return P::load(packets + 3 * P::size); }
        static bool is_chosen(const R* packets, Index i) { return packets[3 * P::size + i] > R(0); }
        std::vector<R> table;

        void begin(std::span<const A> weights, std::span<const A> own, A unit_x, A unit_y) {
            table.assign(weights.size() / static_cast<std::size_t>(P::size) * step + step, R(0));
            // What fills the last packet is farther than all others.
            constexpr auto size = static_cast<std::size_t>(P::size);
            R* row = table.data();
            for (std::size_t i = 0; i / size * size < weights.size();
                 ++i, row += i % size == 0 ? step - P::size + 1 : 1) {
                if (i >= weights.size()) {
                    *row = std::numeric_limits<R>::infinity();
                    continue;
                }
                const A length = own[i] / unit_y;
                row[0] = static_cast<R>(length * length);
                row[P::size] = static_cast<R>(-2 * weights[i] * (unit_x / unit_y));
                // What underflows in float is less than the error that this length stands for.
                row[2 * P::size] =
                    static_cast<R>(std::same_as<R, A> || length == A(0) ? length : std::max(length, A(1e-27)));
            }
        }
        void select(Index key) {
            detail::at(table, key / P::size * step + 3 * P::size + key % P::size) =
                std::numeric_limits<R>::infinity();
        }
    };

    auto vector(Index i) const {
        return Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(x_.row(i).data(), 1, x_.cols())
            .template cast<A>();
    }

    /// False if a token or weight is not finite.
    bool begin(const Matrix<A>& gram) {
        const std::size_t size = p_.size();
        weights_.assign(p_.begin(), p_.end());
        lengths_.resize(size);
        bool finite = true;
        A largest = 0;
        unit_x_ = unit_y_ = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const A length = std::sqrt(gram(static_cast<Index>(i), static_cast<Index>(i)));
            lengths_[i] = std::abs(weights_[i]) * length;
            finite = finite && std::isfinite(lengths_[i] * lengths_[i]) && std::isfinite(length * length);
            unit_x_ = std::max(unit_x_, length);
            unit_y_ = std::max(unit_y_, lengths_[i]);
            largest = std::max(largest, std::abs(weights_[i]));
        }
        if (!finite) return false;
        if (!(unit_y_ > A(0))) unit_x_ = unit_y_ = 1; // every distance is 0
        const A slope = largest * (unit_x_ / unit_y_);
        in_float_ = narrows && slope < A(1e30);
        in_range_ = slope * static_cast<A>(2 * size + 2) <= std::numeric_limits<A>::max();
        if (in_float_) float_keys_.begin(weights_, lengths_, unit_x_, unit_y_);
        keys_.begin(weights_, lengths_, unit_x_, unit_y_);
        before_.assign(size, A(0));
        after_.resize(size);
        return true;
    }

    Index stride() const { return detail::row_stride<float>(std::ssize(before_)); } ///< of the rows of c

    /// 0 behind the last key of a row of c.
    template <class R>
    void fill_up(R* inner) const {
        const Index n = std::ssize(before_), size = detail::Packet<R>::size;
        std::fill(inner + n, inner + (n + size - 1) / size * size, R(0));
    }

    /// c of all keys after each of the steps, one row of `inner` for each, from what it was before.
    template <class R>
    R* add_inner(const Matrix<A>& gram, std::vector<R>& inner) {
        using P = detail::Packet<A>;
        constexpr int many = P::size >= 8 ? 16 : 8, few = 2;
        const Index n = std::ssize(before_);
        inner.resize(static_cast<std::size_t>(steps_at_once * stride()));
        for (std::size_t at = 0; at < steps_.size(); ++at)
            fill_up(inner.data() + static_cast<Index>(at) * stride());
        Index first = 0;
        for (; first + many * P::size <= n; first += many * P::size) add_columns<many>(gram, inner, first);
        for (; first + few * P::size <= n; first += few * P::size) add_columns<few>(gram, inner, first);
        if (first + P::size <= n) {
            add_columns<1>(gram, inner, first);
            first += P::size;
        }
        if (first == n) return inner.data();
        // Products as of packets, so that a key's c does not depend on where it stands.
        const detail::PartialLane<A> lane{first, n - first};
        P c = lane(before_.data());
        R* to = inner.data() + first;
        for (const Step& step : steps_) {
            c = madd(P(step.weight), lane(gram.data() + step.key * gram.cols()), c);
            store_some(c, n - first, to);
            to += stride();
        }
        lane.store(after_.data(), c);
        return inner.data();
    }

    template <class R>
    static void store_some(detail::Packet<A> x, Index count, R* to) {
        std::array<A, static_cast<std::size_t>(detail::Packet<A>::size)> elements;
        x.store(elements.data());
        for (Index i = 0; i < count; ++i) to[i] = static_cast<R>(detail::at(elements, i));
    }

    /// The same for some whole packets, whose c stay in registers.
    template <int packets, class R>
    void add_columns(const Matrix<A>& gram, std::vector<R>& inner, Index first) {
        using P = detail::Packet<A>;
        P c[std::size_t(packets)];
#pragma GCC unroll 16
        for (int j = 0; j < packets; ++j) c[j] = P::load(before_.data() + first + j * P::size);
        R* to = inner.data() + first;
        for (std::size_t at = 0; at < steps_.size(); ++at, to += stride()) {
            const A* const products = gram.data() + steps_[at].key * gram.cols() + first;
            if (at + 4 < steps_.size())
                detail::prefetch(gram.data() + steps_[at + 4].key * gram.cols() + first, packets * P::size);
            const P weight = steps_[at].weight;
#pragma GCC unroll 16
            for (int j = 0; j < packets; ++j) c[j] = madd(weight, P::load(products + j * P::size), c[j]);
            if constexpr (std::same_as<R, A>) {
#pragma GCC unroll 16
                for (int j = 0; j < packets; ++j) c[j].store(to + j * P::size);
            } else if constexpr (packets == 1) {
                store_some(c[0], P::size, to);
            } else {
#pragma GCC unroll 16
                for (int j = 0; j < packets; j += 2) detail::narrow(c[j], c[j + 1]).store(to + j * P::size);
            }
        }
#pragma GCC unroll 16
        for (int j = 0; j < packets; ++j) c[j].store(after_.data() + first + j * P::size);
    }

    /// The steps that are asked for, from their c.
    template <class R>
    void evaluate(Keys<R>& keys, R* inner, const Matrix<A>& gram) {
        for (std::size_t at = 0; at < steps_.size(); ++at, inner += stride()) {
            const Step& step = steps_[at];
            keys.select(step.key);
            if constexpr (!std::same_as<R, A>) keys_.select(step.key);
            if (step.to < 0 || count(keys, inner, step)) continue;
            if constexpr (!std::same_as<R, A>)
                if (count(keys_, wide_inner(gram, at), step)) continue;
            set_.assign(p_, x_, order_.first(static_cast<std::size_t>(step.count)));
            const Separability<A> figures = separability(set_);
            set(step.to, figures.nearest_other, figures.farthest_selected, figures.precision, figures.recall);
        }
    }

    /// c in double after a step that was taken in float.
    A* wide_inner(const Matrix<A>& gram, std::size_t step) {
        using P = detail::Packet<A>;
        inner_.resize(static_cast<std::size_t>(stride()));
        detail::for_each_lane<A>(std::ssize(before_), [&](const auto& lane) {
            P c = lane(before_.data(), A(0));
            for (std::size_t at = 0; at <= step; ++at)
                c = madd(P(steps_[at].weight), lane(gram.data() + steps_[at].key * gram.cols(), A(0)), c);
            lane.store(inner_.data(), c);
        });
        fill_up(inner_.data());
        return inner_.data();
    }

    /// Sets the figures of a step from its c, which are overwritten; false if R leaves a count open.
    template <class R>
    bool count(const Keys<R>& keys, R* inner, const Step& step) {
        using P = detail::Packet<R>;
        if (!in_range_) return false;
        const Index n = detail::size<T>(p_);
        // c_i is a sum of N inner products of d terms: |error of D^2 - |s|^2| <= k (|y|^2 + 2 |y| sum |y_j|). In
        // float also four roundings of the square and of 2 p_i c_i <= 2 |y_i| |s|. No |y| is above 1.
        const A k = std::numeric_limits<A>::epsilon() * static_cast<A>(step.count + x_.cols() + 7);
        const A r = std::same_as<R, A> ? A(0) : A(2) * static_cast<A>(std::numeric_limits<R>::epsilon());
        if (!std::same_as<R, A> && !(step.length > A(1e-3) * unit_y_)) return false; // see `Keys::begin`
        const P error = static_cast<R>(k + r + 2 * (k * step.selected_length + r * (step.length / unit_y_)));
        constexpr R far_away = std::numeric_limits<R>::infinity();
        const P zero = R(0), one = R(1), minus = zero - error;
        // D^2 - |s|^2 of a key is certain to lie between `low` and `high`.
        P nearest_low = far_away, nearest_high = far_away, farthest_low = -far_away, farthest_high = -far_away;
        const R* row = keys.table.data();
        for (Index i = 0; i < n; i += P::size, row += Keys<R>::step) {
            const P offset = madd(P::load(row + P::size), P::load(inner + i), P::load(row));
            offset.store(inner + i);
            const P length = P::load(row + 2 * P::size), chosen = Keys<R>::chosen(row);
            const P low = madd(length, minus, offset), high = madd(length, error, offset);
            nearest_low = select_below(chosen, one, min(nearest_low, low), nearest_low);
            nearest_high = select_below(chosen, one, min(nearest_high, high), nearest_high);
            farthest_low = select_below(chosen, one, farthest_low, max(farthest_low, low));
            farthest_high = select_below(chosen, one, farthest_high, max(farthest_high, high));
        }
        // Others at most as far as the farthest selected key are confused, and so are selected ones nearer than the
        // nearest other recalled: for certain, and perhaps.
        const R farthest_from = reduce_max(farthest_low), nearest_to = reduce_min(nearest_high);
        const P confusing = farthest_from, confusing_perhaps = reduce_max(farthest_high),
                recalling = std::nextafter(reduce_min(nearest_low), -far_away),
                recalling_perhaps = std::nextafter(nearest_to, -far_away);
        const P near_limit = step.count == n ? -far_away : nearest_to, far_limit = farthest_from;
        P confused = zero, certain = zero, perhaps = zero;
        // The distances of all keys that may be the nearest or farthest.
        A nearest = infinity, farthest = 0;
        row = keys.table.data();
        for (Index i = 0; i < n; i += P::size, row += Keys<R>::step) {
            const P offset = P::load(inner + i), length = P::load(row + 2 * P::size),
                    chosen = Keys<R>::chosen(row);
            const P low = madd(length, minus, offset), high = madd(length, error, offset);
            perhaps = select_below(select_below(chosen, one, confusing_perhaps, recalling_perhaps), low,
                                   perhaps, perhaps + one);
            const P counts = select_below(select_below(chosen, one, confusing, recalling), high, zero, one);
            certain += counts;
            confused = select_below(chosen, one, confused + counts, confused);
            // one of both
            const P within = select_below(chosen, one, near_limit - low, high - far_limit);
            for (std::uint32_t found = mask_not_below(within, zero); found != 0; found &= found - 1) {
                const Index key = i + std::countr_zero(found);
                if (key >= n) break;
                const A apart = distance(step, key);
                if (Keys<R>::is_chosen(row, key - i))
                    farthest = std::max(farthest, apart);
                else
                    nearest = std::min(nearest, apart);
            }
        }
        const A all_certain = static_cast<A>(reduce_add(certain));
        if (all_certain != static_cast<A>(reduce_add(perhaps))) return false;
        const A sure = static_cast<A>(reduce_add(confused)), all = static_cast<A>(step.count);
        set(step.to, nearest, farthest, all / (all + sure), (all_certain - sure) / all);
        return true;
    }

    A distance(const Step& step, Index key) const {
        const A weight = detail::at(weights_, key);
        if (weight == A(0)) return step.length;
        // Sums side by side, which compilers take for packets; Eigen does not vectorise what also converts.
        constexpr Index side = 8;
        std::array<A, std::size_t(side)> sums{};
        const T* const x = x_.row(key).data();
        const Index d = x_.cols();
        Index c = 0;
        const auto add = [&](Index j) {
            const A apart = step.s[c + j] - weight * A(x[c + j]);
            sums[static_cast<std::size_t>(j)] += apart * apart;
        };
        for (; c + side <= d; c += side)
            for (Index j = 0; j < side; ++j) add(j);
        for (; c < d; ++c) add(0);
        return std::sqrt(std::accumulate(sums.begin(), sums.end(), A(0)));
    }

    void set(Index to, A nearest, A farthest, A precision, A recall) {
        detail::at(curve_.nearest_other, to) = nearest;
        detail::at(curve_.farthest_selected, to) = farthest;
        detail::at(curve_.precision, to) = precision;
        detail::at(curve_.recall, to) = recall;
        const A sum = precision + recall;
        detail::at(curve_.f_score, to) = sum > A(0) ? 2 * precision * recall / sum : sum;
    }

    SeparabilityCurve<A> curve_;
    RowIn<T> p_;
    MatrixView<T> x_;
    std::span<const Index> order_;
    A unit_x_ = 1, unit_y_ = 1;
    bool in_float_ = false;
    bool in_range_ = true; ///< whether nothing overflows in these units
    std::vector<A> weights_, lengths_;
    Keys<A> keys_;
    Keys<float> float_keys_;
    std::vector<A> before_, after_, inner_; ///< c
    std::vector<A> sums_;                   ///< s of the steps
    Matrix<A> wide_;                        ///< x
    std::vector<float> float_inner_;
    std::vector<Step> steps_;
    Vector s_;
    SelectedSet<T> set_;
    std::vector<Index> all_;
};

} // namespace v0_2
} // namespace attnscope
