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

/// The figures of many N from the inner products of the token vectors.
/// Formula. D_i^2 = |s_N|^2 + |y_i|^2 - 2 p_i c_i, c_i = <s_N, x_i>, is compared without |s_N|^2, which is alike for all
/// keys; for float vectors in float, from products that are kept in float. Keys that this leaves on either side of a limit
/// are measured in double, and where that leaves them there, too, the N is counted by `separability`, so that the counts
/// are the same. (Ties of keys that weigh nothing are exact.) s_N and the two distances are those of double.
/// Inversions need the order of all keys and are left to it.
/// Cost. O(n) for each N up to the largest, about a tenth of it for those that are not asked for, and O(n d) for
/// any run of them; O(n d + n log n) for those that are counted apart; memory O(n) beyond the curve and what `assign`
/// keeps.
template <Real T>
class SeparabilityCurves {
public:
    using A = Accumulator<T>;

    /// Token vectors, of whose first n the rows of weights are: the keys of a causal head, say. Borrowed.
    /// Shapes and units. x [keys, d].
    /// Cost. O(keys^2 d); memory O(keys^2) for their inner products, in float for float vectors.
    void assign(MatrixView<T> x) {
        const Index keys = x.rows(), columns = P::size * ((keys + P::size - 1) / P::size);
        all_x_ = x;
        wide_ = x.map().template cast<A>();
        x_lengths_.resize(static_cast<std::size_t>(keys));
        unit_x_ = 0;
        for (Index i = 0; i < keys; ++i) {
            const A length = std::sqrt(wide_.row(i).squaredNorm());
            detail::at(x_lengths_, i) = length;
            if (std::isfinite(length)) unit_x_ = std::max(unit_x_, length);
        }
        if (unit_x_ > A(0)) wide_ /= unit_x_;
        products_.resize(keys, columns);
        constexpr Index at_once = 128; // few enough that what is wide stays near
        Matrix<A> some;
        for (Index first = 0; first < keys; first += at_once) {
            const Index count = std::min(at_once, keys - first);
            some.noalias() = wide_.middleRows(first, count) * wide_.transpose();
            products_.block(first, 0, count, keys) = some.template cast<R>();
            products_.block(first, keys, count, columns - keys).setZero();
        }
    }

    /// The figures for N = 1 ... n_max.
    /// Shapes and units. p [n]: weights of the first n keys, order: their ranking, largest weight first, as `Ranking`
    /// gives it.
    /// Special rows. A token or weight that is not finite, or whose square is not, leaves every figure NaN.
    /// Throws. `invalid_argument` when sizes do not fit.
    const SeparabilityCurve<A>& compute(RowIn<T> p, std::span<const Index> order, Index n_max) {
        detail::require(n_max >= 0, "SeparabilityCurves", "n_max must be in [0, n]", n_max, p.size());
        all_.resize(static_cast<std::size_t>(n_max));
        std::iota(all_.begin(), all_.end(), Index(1));
        return compute(p, order, std::span<const Index>(all_));
    }

    /// The same for some N.
    /// Throws. `invalid_argument` also unless `counts` ascend within [1, n].
    const SeparabilityCurve<A>& compute(RowIn<T> p, std::span<const Index> order,
                                        std::span<const Index> counts) {
        const Index n = detail::size<T>(p), d = all_x_.cols();
        detail::require(all_x_.rows() >= n && std::ssize(order) == n, "SeparabilityCurves",
                        "token vectors and order must cover the weights", all_x_.rows(), order.size(), n);
        for (std::size_t at = 0; at < counts.size(); ++at)
            detail::require(counts[at] > (at > 0 ? counts[at - 1] : 0) && counts[at] <= n, "SeparabilityCurves",
                            "the N must ascend in [1, n]", counts[at], n);
        constexpr A nan = std::numeric_limits<A>::quiet_NaN();
        for (auto* figure : {&curve_.nearest_other, &curve_.farthest_selected, &curve_.precision,
                             &curve_.recall, &curve_.f_score})
            figure->assign(counts.size(), nan);
        p_ = p;
        x_ = MatrixView<T>(all_x_.data(), n, d, all_x_.outer_stride());
        order_ = order;
        if (counts.empty() || !begin()) return curve_;
        s_.assign(static_cast<std::size_t>(d), A(0));
        sums_.resize(static_cast<std::size_t>(steps_at_once * d));
        A selected_length = 0;
        const Index last = counts.back();
        for (Index rank = 0, to = 0, nothing = 0; rank < last;) {
            const auto select = [&](Index key) {
                const A weight = detail::at(weights_, key);
                const T* const x = x_.row(key).data();
                A* const s = s_.data();
                for (Index c = 0; c < d; ++c) s[c] += weight * A(x[c]);
                selected_length += detail::at(lengths_, key);
                nothing += !(detail::at(lengths_, key) > A(0));
                ++rank;
            };
            // So many keys at once that a product of s with all x costs less than they do.
            const bool jump = detail::at(counts, to) - rank > d / 2 + 1;
            while (jump && rank + 1 < detail::at(counts, to)) {
                const Index key = detail::at(order, rank);
                select(key);
                sides_.select(key);
                sides_before_.select(key);
            }
            steps_.clear();
            while (rank < last && std::ssize(steps_) < (jump ? 1 : steps_at_once)) {
                Step step;
                step.key = detail::at(order, rank);
                select(step.key);
                step.count = rank;
                step.weight = static_cast<R>(detail::at(weights_, step.key) * x_to_y_);
                step.selected_length = selected_length;
                step.nothing = nothing;
                step.s = sums_.data() + std::ssize(steps_) * d;
                std::copy(s_.begin(), s_.end(), step.s);
                if (detail::at(counts, to) == step.count) step.to = to++;
                steps_.push_back(step);
            }
            if (jump) { // the whole c, to which the step has nothing to add
                steps_[0].weight = 0;
                before_.head(n) =
                    (Eigen::Map<const Vector>(s_.data(), d) / unit_y_) * wide_.topRows(n).transpose();
            }
            if (in_range_) find_offsets();
            for (std::size_t at = 0; at < steps_.size(); ++at) {
                sides_.select(steps_[at].key);
                if (steps_[at].to >= 0 && !(in_range_ && count(at))) count_apart(steps_[at]);
            }
        }
        return curve_;
    }

private:
    static constexpr bool narrows = std::same_as<T, float>;
    using R = std::conditional_t<narrows, float, A>; ///< what is compared in
    using P = detail::Packet<R>;
    using Vector = Eigen::Matrix<A, 1, Eigen::Dynamic>;
    static constexpr R far_away = std::numeric_limits<R>::infinity();
    static constexpr A infinity = std::numeric_limits<A>::infinity();
    /// As many N go over the keys together, so that each c_i is loaded and stored once for them.
    static constexpr Index steps_at_once = 16;
    /// Of so many keys that R leaves open sorting them all is no dearer.
    static constexpr std::size_t most_open = 64;

    /// D^2 - |s|^2 of a key is certain to lie between `low` and `high`: the least and largest of both sides.
    struct Extremes {
        P nearest_low, nearest_high, farthest_low, farthest_high;
    };
    struct Limits {
        R nearest_low, nearest_high, farthest_low, farthest_high;
    };
    /// N = count, whose last key is `key`; `to`: element of the curve, -1 if it is not asked for.
    struct Step {
        Index key = 0, count = 0, to = -1;
        R weight = 0;          ///< in these units
        A selected_length = 0; ///< sum of |y| over the selected
        Index nothing = 0;     ///< how many of them have |y| = 0
        A* s = nullptr;
    };
    /// Keys of two packets that R leaves on either side, and those that may be the nearest or farthest.
    struct Found {
        Index packet;
        std::uint32_t open, candidates;
    };
    /// Which keys of each packet are selected, and which are not.
    struct Sides {
        std::vector<std::uint32_t> selected, others;
        void begin(Index n) {
            constexpr auto size = static_cast<std::size_t>(P::size);
            const auto packets = (static_cast<std::size_t>(n) + size - 1) / size;
            selected.assign(packets, 0);
            others.assign(packets, ~std::uint32_t(0) >> (32 - size));
            if (const Index rest = n % P::size; rest > 0) others.back() = (std::uint32_t(1) << rest) - 1;
        }
        void select(Index key) {
            const std::uint32_t bit = std::uint32_t(1) << (key % P::size);
            detail::at(selected, key / P::size) |= bit;
            detail::at(others, key / P::size) &= ~bit;
        }
        bool is_selected(Index key) const {
            return (detail::at(selected, key / P::size) >> (key % P::size) & 1) != 0;
        }
    };

    /// False if a token or weight is not finite.
    bool begin() {
        const std::size_t size = p_.size();
        weights_.assign(p_.begin(), p_.end());
        lengths_.resize(size);
        bool finite = true;
        A largest = 0;
        unit_y_ = 0;
        nothing_ = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const A length = x_lengths_[i], own = std::abs(weights_[i]) * length;
            lengths_[i] = own;
            finite = finite && std::isfinite(own * own) && std::isfinite(length * length);
            unit_y_ = std::max(unit_y_, own);
            if (own > A(0)) largest = std::max(largest, std::abs(weights_[i]));
            nothing_ += !(own > A(0));
        }
        if (!finite) return false;
        const Index n = std::ssize(lengths_), padded = P::size * ((n + P::size - 1) / P::size);
        // In units of the longest x and y.
        x_to_y_ = unit_y_ > A(0) ? unit_x_ / unit_y_ : A(1);
        if (!(unit_y_ > A(0))) unit_y_ = 1;
        const A slope = largest * x_to_y_;
        in_range_ = slope < (std::same_as<R, float> ? A(1e15) : A(1e120));
        squares_.setZero(padded);
        slopes_.setZero(padded);
        least_lengths_.setZero(padded);
        // What underflows is less than the error that this length stands for.
        constexpr A tiny = std::same_as<R, float> ? A(2e-39) : A(1e-300);
        const A least =
            std::max(std::same_as<R, float> ? A(1e-27) : A(1e-250), tiny * slope * slope * static_cast<A>(n));
        for (Index i = 0; i < n; ++i) {
            const A length = detail::at(lengths_, i) / unit_y_;
            if (!(length > A(0))) continue;
            squares_[i] = static_cast<R>(length * length);
            slopes_[i] = static_cast<R>(-2 * detail::at(weights_, i) * x_to_y_);
            least_lengths_[i] = static_cast<R>(std::max(length, least));
        }
        errors_.resize(padded);
        before_.setZero(padded);
        offsets_.resize(static_cast<std::size_t>(steps_at_once * stride()));
        sides_.begin(n);
        sides_before_.begin(n);
        return true;
    }

    Index stride() const { return detail::row_stride<R>(squares_.size()); } ///< of offsets_

    /// D^2 - |s|^2 of all keys at each of the steps, and the extremes.
    void find_offsets() {
        // s is a sum of N vectors: |error of D^2 - |s|^2| <= k (|y|^2 + 2 |y| sum |y_j|). In float also that of the
        // products and of sums of 16 of them, and a few roundings of each term and of the limits.
        const Step& last = steps_.back();
        constexpr A unit = static_cast<A>(std::numeric_limits<R>::epsilon()) / 2;
        const A k = std::numeric_limits<A>::epsilon() * static_cast<A>(last.count + x_.cols() + 10),
                r = std::same_as<R, A> ? A(0) : A(1.01) * static_cast<A>(steps_at_once + 8) * unit;
        const R error = static_cast<R>((k + r) * (1 + 2 * last.selected_length / unit_y_));
        errors_ = error * least_lengths_;
        offsets_before_ = squares_ + slopes_ * before_.transpose().array().template cast<R>();
        extremes_.fill({P(far_away), P(far_away), P(-far_away), P(-far_away)});
        const Index packets = squares_.size() / P::size;
        constexpr int many = P::size >= 8 ? 8 : 4;
        Index packet = 0;
        for (; packet + many <= packets; packet += many) find_offsets<many>(packet);
        for (; packet < packets; ++packet) find_offsets<1>(packet);
    }

    /// The same for some packets.
    template <int packets>
    void find_offsets(Index first_packet) {
        const Index first = first_packet * P::size;
        P added[std::size_t(packets)]; // to c
#pragma GCC unroll 8
        for (int j = 0; j < packets; ++j) added[j] = R(0);
        // Members would be read anew after every store.
        R* to = offsets_.data() + first;
        const R *const slopes = slopes_.data() + first, *const from = offsets_before_.data() + first,
                       *const errors = errors_.data() + first;
        const std::uint32_t *const selected_bits = sides_before_.selected.data() + first_packet,
                                   *const other_bits = sides_before_.others.data() + first_packet;
        const Index step_stride = stride();
        for (std::size_t at = 0; at < steps_.size(); ++at, to += step_stride) {
            const Step& step = steps_[at];
            const R* const products = products_.row(step.key).data() + first;
            if (at + 4 < steps_.size())
                detail::prefetch(products_.row(steps_[at + 4].key).data() + first, packets * P::size);
            const P weight = step.weight;
#pragma GCC unroll 8
            for (int j = 0; j < packets; ++j)
                added[j] = madd(weight, P::load(products + j * P::size), added[j]);
            if (step.key / P::size - first_packet >= 0 && step.key / P::size - first_packet < packets)
                sides_before_.select(step.key);
            if (step.to < 0) continue;
            Extremes extremes = extremes_[at];
#pragma GCC unroll 8
            for (int j = 0; j < packets; ++j) {
                const Index i = j * P::size;
                const P offset = madd(P::load(slopes + i), added[j], P::load(from + i)),
                        error = P::load(errors + i);
                offset.store(to + i);
                const P low = offset - error, high = offset + error;
                const std::uint32_t selected = selected_bits[j], others = other_bits[j];
                extremes.nearest_low = choose(others, min(extremes.nearest_low, low), extremes.nearest_low);
                extremes.nearest_high = choose(others, min(extremes.nearest_high, high), extremes.nearest_high);
                extremes.farthest_low =
                    choose(selected, max(extremes.farthest_low, low), extremes.farthest_low);
                extremes.farthest_high =
                    choose(selected, max(extremes.farthest_high, high), extremes.farthest_high);
            }
            extremes_[at] = extremes;
        }
#pragma GCC unroll 8
        for (int j = 0; j < packets; ++j) {
            std::array<R, static_cast<std::size_t>(P::size)> sums;
            added[j].store(sums.data());
            for (Index i = 0; i < P::size; ++i)
                before_[first + j * P::size + i] += A(sums[static_cast<std::size_t>(i)]);
        }
    }

    /// Selected keys that are certain to be nearer than all others, others that are certain to be no farther than some
    /// selected key, and how many packets of `found_` have to be looked at.
    struct Counts {
        Index recalled, confused, found;
    };
    EIGEN_DONT_INLINE Counts count_certain(const R* offsets, const Limits& limits) {
        const P nearest_low = limits.nearest_low, nearest_high = limits.nearest_high,
                farthest_low = limits.farthest_low, farthest_high = limits.farthest_high;
        const Index packets = squares_.size() / P::size;
        const std::uint32_t *const selected_bits = sides_.selected.data(), *const other_bits =
                                                                               sides_.others.data();
        const R* const errors = errors_.data();
        found_.resize(static_cast<std::size_t>(packets));
        Found* list = found_.data();
        Index recalled = 0, confused = 0;
        // Two packets at a time, or a packet and itself with no keys.
        const auto add = [&](Index first, Index second, std::uint32_t selected,
                             std::uint32_t others) ATTNSCOPE_DETAIL_INLINE_LAMBDA {
            const Index i = first * P::size, j = second * P::size;
            const P offset = P::load(offsets + i), error = P::load(errors + i), offset2 = P::load(offsets + j),
                    error2 = P::load(errors + j);
            const P low = offset - error, high = offset + error, low2 = offset2 - error2,
                    high2 = offset2 + error2;
            const std::uint32_t confused_perhaps = masks_not_below(farthest_high, low, farthest_high, low2),
                                is_near = masks_not_below(farthest_low, high, farthest_low, high2),
                                not_below = masks_not_below(low, nearest_high, low2, nearest_high),
                                not_recalled = masks_not_below(high, nearest_low, high2, nearest_low);
            confused += std::popcount(is_near & others);
            recalled += std::popcount(selected & ~not_recalled);
            const std::uint32_t open = (confused_perhaps & others & ~is_near) |
                                       (selected & not_recalled & ~not_below),
                                candidates = (others & ~not_below) | (selected & ~is_near);
            if ((open | candidates) != 0) [[unlikely]]
                *list++ = {first, open, candidates};
        };
        Index packet = 0;
        for (; packet + 2 <= packets; packet += 2)
            add(packet, packet + 1, selected_bits[packet] | selected_bits[packet + 1] << P::size,
                other_bits[packet] | other_bits[packet + 1] << P::size);
        if (packet < packets) add(packet, packet, selected_bits[packet], other_bits[packet]);
        return {recalled, confused, list - found_.data()};
    }

    /// The figures of a step; false where it has to be counted apart.
    bool count(std::size_t at) {
        const Step& step = steps_[at];
        const R* const offsets = offsets_.data() + static_cast<Index>(at) * stride();
        const Extremes& extremes = extremes_[at];
        const Counts certain =
            count_certain(offsets, {reduce_min(extremes.nearest_low), reduce_min(extremes.nearest_high),
                                    reduce_max(extremes.farthest_low), reduce_max(extremes.farthest_high)});
        Index recalled = certain.recalled, confused = certain.confused;
        A nearest = infinity, farthest = 0;
        if (nothing_ > 0) { // keys without length are as far as s is long
            const A length = distance(step, -1);
            if (nothing_ > step.nothing) nearest = length;
            if (step.nothing > 0) farthest = length;
        }
        open_.clear();
        // The distances of all keys that may be the nearest or farthest.
        for (Index i = 0; i < certain.found; ++i) {
            const Found& these = detail::at(found_, i);
            for (std::uint32_t left = these.candidates; left != 0; left &= left - 1) {
                const Index key = these.packet * P::size + std::countr_zero(left);
                const A apart = distance(step, key);
                if (sides_.is_selected(key))
                    farthest = std::max(farthest, apart);
                else
                    nearest = std::min(nearest, apart);
            }
            for (std::uint32_t left = these.open; left != 0; left &= left - 1)
                open_.push_back(these.packet * P::size + std::countr_zero(left));
        }
        if (open_.size() > most_open) return false;
        const A in_doubt = 4 * std::numeric_limits<A>::epsilon() * static_cast<A>(step.count + x_.cols() + 10) *
                           (step.selected_length + unit_y_);
        for (const Index key : open_) {
            const bool is_selected = sides_.is_selected(key);
            const A apart = distance(step, key), limit = is_selected ? nearest : farthest;
            if (!(std::abs(apart - limit) > in_doubt)) return false;
            if (apart < limit) ++(is_selected ? recalled : confused);
        }
        const A all = static_cast<A>(step.count);
        set(step.to, nearest, farthest, all / (all + static_cast<A>(confused)), static_cast<A>(recalled) / all);
        return true;
    }

    void count_apart(const Step& step) {
        set_.assign(p_, x_, order_.first(static_cast<std::size_t>(step.count)));
        const Separability<A> figures = separability(set_);
        set(step.to, figures.nearest_other, figures.farthest_selected, figures.precision, figures.recall);
    }

    /// Of a key from s; |s| for key -1.
    A distance(const Step& step, Index key) const {
        const A weight = key < 0 ? A(0) : detail::at(weights_, key);
        // Sums side by side, which compilers take for packets; Eigen does not vectorise what also converts.
        constexpr Index side = 16;
        std::array<A, std::size_t(side)> sums{};
        const T* const x = x_.row(std::max<Index>(key, 0)).data();
        const A* const s = step.s;
        const Index d = x_.cols();
        Index c = 0;
        for (; c + side <= d; c += side)
            for (Index j = 0; j < side; ++j) {
                const A apart = s[c + j] - weight * A(x[c + j]);
                sums[static_cast<std::size_t>(j)] += apart * apart;
            }
        for (Index j = 0; c < d; ++c, ++j) {
            const A apart = s[c] - weight * A(x[c]);
            sums[static_cast<std::size_t>(j)] += apart * apart;
        }
        for (std::size_t half = side / 2; half > 0; half /= 2)
            for (std::size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
        return std::sqrt(sums[0]);
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
    // Of the head.
    MatrixView<T> all_x_;
    Matrix<A> wide_;     ///< x in units of the longest
    Matrix<R> products_; ///< <x_i, x_j> so, whole packets a row
    std::vector<A> x_lengths_;
    A unit_x_ = 0;
    // Of the row. Arrays in units of the longest y, whole packets.
    RowIn<T> p_;
    MatrixView<T> x_;
    std::span<const Index> order_;
    A unit_y_ = 1, x_to_y_ = 1;
    bool in_range_ = true; ///< whether nothing overflows in these units
    Index nothing_ = 0;    ///< keys with |y| = 0
    std::vector<A> weights_, lengths_;
    Eigen::Array<R, Eigen::Dynamic, 1> squares_, slopes_, least_lengths_; ///< |y|^2, -2 p, |y|
    Eigen::Array<R, Eigen::Dynamic, 1> errors_, offsets_before_; ///< of the offsets, and these before the steps
    Vector before_;                                              ///< c before the steps
    Sides sides_, sides_before_;                                 ///< at this step, and for the offsets
    std::vector<R> offsets_;                                     ///< D^2 - |s|^2, a row for each step
    std::vector<A> sums_;                                        ///< s of the steps
    std::vector<Step> steps_;
    std::array<Extremes, std::size_t(steps_at_once)> extremes_; ///< of the steps
    std::vector<Found> found_;
    std::vector<Index> open_;
    std::vector<A> s_;
    SelectedSet<T> set_;
    std::vector<Index> all_;
};

} // namespace v0_2
} // namespace attnscope
