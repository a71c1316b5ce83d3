// Solves sum p = 1 of alpha-entmax, exactly to rounding, in a few passes over the keys that may have weight.
#pragma once

#include <attnscope/detail/elementary.hpp>
#include <attnscope/detail/lanes.hpp>
#include <attnscope/normalizer/scaled_softmax.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Where alpha-entmax cuts a row: p_i = [1 + (alpha-1)(z_i - max z - theta)]_+^{1/(alpha-1)}.
template <Real A>
struct EntmaxThreshold {
    A theta = std::numeric_limits<A>::quiet_NaN(); ///< in [0, log n]; lse(z) - max z at alpha = 1
    Index support = 0; ///< keys of positive weight, which may be too small for the scalar
    A residual = std::numeric_limits<A>::quiet_NaN(); ///< sum p - 1 at this theta
    int steps = 0;                                    ///< evaluations of the sum
    bool converged = true;                            ///< false: stopped at the limit of steps
};

namespace detail {

// One row of alpha-entmax is solved for its largest weight p1. With y_i = z_i - max z <= 0 and a = alpha-1,
//     p_i = p1 t_i,   t_i = r_i^{1/a},   r_i = 1 + b y_i,   b = a/X,   X = p1^a,
// and p1 is right when p1 Q = 1, Q = sum t. The terms stand beside the largest, which is 1, so that weights
// keep their digits however many keys share them, and a -> 0 is no singularity (b -> a, t -> e^y). N = (p1 Q)^a
// is a norm of the positive parts of X + a y, convex in X for a <= 1. Newton's step on it,
//     X *= 1 - (1 - 1/N)/E,   E = sum(t/r)/Q,
// then falls monotonically from any X above the root: from X = 1, or from the root of a part of the keys.

/// t and t/r of c = r - 1 <= 0 for a = 1; 0 where r <= 0.
template <Real C>
struct LinearTerms {
    using P = Packet<C>;
    static constexpr bool steep = false; ///< may weights be steep where their keys leave (a > 1)?
    Packets<C, 2> operator()(P c) const {
        const P zero = C(0), r = C(1) + c;
        return {{max(r, zero), select_below(zero, r, C(1), zero)}};
    }
};
/// The same for a = 1/2.
template <Real C>
struct SquareTerms {
    using P = Packet<C>;
    static constexpr bool steep = false;
    Packets<C, 2> operator()(P c) const {
        const P r = max(C(1) + c, C(0));
        return {{r * r, r}};
    }
};
/// The same for a = 2.
template <Real C>
struct RootTerms {
    using P = Packet<C>;
    static constexpr bool steep = true;
    Packets<C, 2> operator()(P c) const {
        const P zero = C(0), one = C(1), t = sqrt(max(one + c, zero));
        return {{t, select_below(zero, t, one / t, zero)}};
    }
};
/// The same for any a > 0.
template <Real C>
struct PowerTerms {
    using P = Packet<C>;
    static constexpr bool steep = true;
    explicit PowerTerms(Accumulator<C> a) : exponent(static_cast<C>(1 / a)) {}
    Packets<C, 2> operator()(P c) const {
        // Where there is no logarithm it is taken of the smallest r, and thrown away.
        const P lowest = -1 + std::numeric_limits<C>::epsilon() / 2, zero = C(0);
        const P inside = max(c, lowest), r = C(1) + inside;
        const P power = exp_nonpositive(exponent * log1p_nonpositive(inside));
        const P t = select_below(c, lowest, zero, power);
        return {{t, t / r}};
    }
    P exponent;
};

/// What one evaluation of a row tells.
template <Real A>
struct EntmaxSums {
    A q = 0;        ///< Q
    A slope = 0;    ///< sum t/r = E Q
    A count = 0;    ///< keys with r > 0
    A smallest = 1; ///< the smallest r > 0
};

/// The unknown X, for a >= 1/2. For a > 1 the norm is not convex; then X is kept inside a bracket until both
/// ends have the same support, for `EntmaxEdge` to go on.
template <Real A>
class WeightPower {
public:
    explicit WeightPower(A a) : a_(a) {}
    A b() const { return a_ / x_; }
    /// b where certainly not above the root's.
    A safe_b() const { return a_ / high_; }
    /// sum p - 1
    A residual(A q) const { return (a_ == 1 ? x_ : a_ == A(0.5) ? x_ * x_ : std::pow(x_, 1 / a_)) * q - 1; }
    /// p1: the weights are divided by their sum, which is exact whatever rounding left in X.
    A leading_weight(A q) const { return 1 / q; }
    A a() const { return a_; }
    A theta() const { return (1 - x_) / a_; }
    A x() const { return x_; }
    /// What is known stays an upper bound when keys are added, n in all.
    void begin(Index n) {
        x_ = high_;
        low_ = a_ > 1 ? std::max(std::pow(static_cast<A>(n), -a_) / 2, tiny) : A(0);
        low_count_ = 1;
    }
    /// One step; false when the sum is right, to `precision`, or no longer gets better.
    bool step(const EntmaxSums<A>& sums, A precision) {
        const A norm = x_ * (a_ == 1 ? sums.q : a_ == A(0.5) ? std::sqrt(sums.q) : std::pow(sums.q, a_));
        if (std::abs(norm - 1) <= 2 * precision * std::max(a_, A(1))) return false;
        A next = x_ - x_ * ((norm - 1) / norm) * (sums.q / sums.slope);
        if (a_ > 1) {
            const A edge = x_ * (1 - sums.smallest); // where the smallest weight would be 0
            if (norm > 1) {
                high_ = x_;
                high_count_ = sums.count;
                high_edge_ = edge;
            } else {
                low_ = x_;
                low_count_ = sums.count;
            }
            const bool decided = low_ >= high_edge_ * (1 - 8 * unit); // one support in the whole bracket
            if (decided && sums.count == high_count_) return false;
            if (!decided && high_count_ - low_count_ <= 8) { // does the key with the smallest weight stay?
                next = high_edge_;
            } else if (halve_ = !halve_; halve_) { // the other steps may creep
                next = low_;
            }
            if (!(next > low_ && next < high_)) next = std::sqrt(low_) * std::sqrt(high_);
            if (!(next > low_ && next < high_)) return false;
            x_ = next;
            return true;
        }
        if (!(next < x_)) return false;
        high_ = x_ = next;
        return true;
    }

private:
    static constexpr A unit = std::numeric_limits<A>::epsilon();
    static constexpr A tiny = std::numeric_limits<A>::min() / unit;
    A a_, x_ = 1, high_ = 1, low_ = 0;
    A low_count_ = 1, high_count_ = 0; ///< support at the ends
    A high_edge_ = 1;
    bool halve_ = false;
};

/// The unknown lambda = -log p1, for a < 1/2, because X = e^{-a lambda} forgets lambda as a -> 0.
template <Real A>
class LogWeight {
public:
    explicit LogWeight(A a) : a_(a) {}
    A b() const { return a_ * std::exp(a_ * lambda_); }
    A safe_b() const { return b(); }
    A residual(A q) const { return std::expm1(std::log(q) - lambda_); }
    A leading_weight(A q) const { return 1 / q; }
    A theta() const { return -std::expm1(-a_ * lambda_) / a_; }
    void begin(Index) {}
    bool step(const EntmaxSums<A>& sums, A precision) {
        const A g = lambda_ - std::log(sums.q); // -log(sum p)
        if (std::abs(g) <= precision) return false;
        const A next = lambda_ - std::log1p(std::expm1(a_ * g) * (sums.q / sums.slope)) / a_;
        return next > lambda_ && (lambda_ = next, true);
    }

private:
    A a_, lambda_ = 0;
};

/// r^{1/a} of 0 < r <= 1, a >= 1; of larger r 1, and below the smallest normal number that of it.
template <Real C>
class EntmaxRoot {
    using P = Packet<C>;

public:
    explicit EntmaxRoot(Accumulator<C> a) : a_(a), exponent_(static_cast<C>(1 / a)) {}
    P operator()(P r) const {
        r = min(r, C(1));
        if (a_ == 1) return r;
        r = max(r, std::numeric_limits<C>::min());
        if (a_ == 2) return sqrt(r);
        return exp_nonpositive(exponent_ * min(C(0), log(r)));
    }

private:
    Accumulator<C> a_;
    P exponent_;
};

/// The weights of a row for a >= 1 from the key at the edge of its support: with z_e the smallest logit that
/// has weight and s its weight,
///     p_i = (s^a + a (z_i - z_e))^{1/a},   F(s) = sum p = 1.
/// F is convex and F' >= 1, so that s is as well known as the logits, where X = p1^a, whose last digit moves
/// the weight at the edge by u^{1/a}, is not. The distance to the edge has all its digits however small the
/// weight.
template <Real A>
class EntmaxEdge {
public:
    explicit EntmaxEdge(A a) : a_(a), root_(a) {}

    /// for_each_part(f) calls f(part of the row in A) for all keys that may have weight, `top` the largest; z_e
    /// is looked for from `edge`, s from s^a = `power`. False when it does not come to an end.
    template <class Parts>
    bool solve(Parts&& for_each_part, A top, A edge, A power) {
        // Keys from `edge_` on have weight (G(z_e), the sum of the others where the key itself has none, is
        // below 1), those up to `dropped` have none.
        A dropped = -std::numeric_limits<A>::infinity();
        edge_ = top;
        for (int tries = 0; passes_ < max_passes; ++tries) {
            const Sums others = sums(for_each_part, edge, A(0));
            A next = 0;
            if (others.q < 1) {
                edge_ = edge;
                // At the right edge X, taken from here, gives the next key no weight.
                if (tries == 0) {
                    weight_ = found(for_each_part, others, power);
                    if (!(this->power() > a_ * (edge_ - others.below))) return true;
                }
                next = others.below;
            } else {
                dropped = edge;
                next = others.next;
            }
            if (!(next > dropped && next < edge_)) { // nothing is left between the two
                weight_ = found(for_each_part, sums(for_each_part, edge_, A(0)), A(0));
                return true;
            }
            edge = tries < 4 ? next : middle(for_each_part, dropped);
        }
        return false;
    }

    A a() const { return a_; }
    A edge() const { return edge_; }         ///< z_e
    A weight() const { return weight_; }     ///< s
    A residual() const { return residual_; } ///< F(s) - 1
    int passes() const { return passes_; }
    /// s^a, which is X at the edge.
    A power() const { return std::pow(weight_, a_); }

private:
    static constexpr int max_passes = 200;

    struct Sums {
        A q = 0, slope = 0;    ///< sums of p and of p^{1-a} over the keys above the edge
        A ties = 0, count = 0; ///< keys at the edge, and from there on
        A next = std::numeric_limits<A>::infinity(), below = -next; ///< the logits beside the edge
    };

    template <class Parts>
    Sums sums(Parts&& for_each_part, A key, A s) {
        using P = Packet<A>;
        const P edge = key, factor = a_, power = std::pow(s, a_);
        const P zero = A(0), one = A(1);
        P next = std::numeric_limits<A>::infinity(), below = zero - next;
        const P highest = next, lowest = below;
        Sums total;
        ++passes_;
        for_each_part([&](RowIn<A> part) {
            const auto [q, slope, above, reached] = sum_lanes<A, 4>(size<A>(part), [&](const auto& lane) {
                const auto x = lane(part.data(), -std::numeric_limits<A>::infinity());
                next = min(next, select_below(edge, x, x, highest));
                below = max(below, select_below(x, edge, x, lowest));
                const auto r = madd(factor, x - edge, power), p = root_(r);
                return Packets<A, 4>{{select_below(edge, x, p, zero), select_below(edge, x, p / r, zero),
                                      select_below(edge, x, one, zero), select_below(x, edge, zero, one)}};
            });
            total.q += q;
            total.slope += slope;
            total.count += reached;
            total.ties += reached - above;
        });
        total.next = reduce_min(next);
        total.below = reduce_max(below);
        return total;
    }

    /// The key in the middle, in order of the row, of those between `dropped` and the edge: about half of them
    /// lie on either side, whether they come at random or in order.
    template <class Parts>
    A middle(Parts&& for_each_part, A dropped) {
        Index count = 0;
        const auto each = [&](auto&& visit) {
            ++passes_;
            for_each_part([&](RowIn<A> part) {
                for (const A x : part)
                    if (x > dropped && x < edge_) visit(x);
            });
        };
        each([&](A) { ++count; });
        A key = edge_;
        Index left = count / 2;
        each([&](A x) {
            if (left-- == 0) key = x;
        });
        return key;
    }

    /// s for this edge: the root of F by Newton's method, from above after the first step, until F no longer
    /// gets nearer to 1. `others`: the sums at s = 0.
    template <class Parts>
    A found(Parts&& for_each_part, const Sums& others, A power) {
        const A most = (1 - others.q) / others.ties;
        residual_ = 0;
        if (a_ == 1) return (1 - others.q) / others.count;
        A s = power > 0 ? std::min(most, std::pow(power, 1 / a_)) : most, best = s;
        for (int step = 0; passes_ < max_passes; ++step) {
            const Sums above = sums(for_each_part, edge_, s);
            const A excess = (above.ties * s - 1) + above.q;
            if (step > 1 && !(std::abs(excess) < std::abs(residual_))) break;
            best = s;
            residual_ = excess;
            if (std::abs(excess) <= 2 * std::numeric_limits<A>::epsilon()) break;
            s = std::min(s - excess / (above.ties + std::pow(s, a_ - 1) * above.slope), most);
            if (!(s > 0)) break;
        }
        return best;
    }

    A a_;
    EntmaxRoot<A> root_;
    A edge_ = 0, weight_ = 0, residual_ = 0;
    int passes_ = 0;
};

/// Largest element, and whether some element is NaN or +inf.
template <Real T>
std::pair<T, bool> checked_row_max(RowIn<T> z) {
    using P = Packet<T>;
    const P lowest = std::numeric_limits<T>::lowest(), zero = T(0);
    P top = -std::numeric_limits<T>::infinity();
    const auto trouble = sum_lanes<T>(size<T>(z), [&](const auto& lane) {
        const auto x = lane(z.data(), -std::numeric_limits<T>::infinity());
        top = max(top, x);
        return zero * select_below(x, lowest, zero, x);
    });
    return {reduce_max(top), !(trouble == trouble)};
}

/// Solves one row of T, whose maximum m is finite and which has no NaN, in scalar C: T, or a wider one where
/// the row's own precision is not enough.
template <Real T, Real C, class Terms, class Unknown>
class EntmaxSolver {
public:
    using A = Accumulator<C>;
    EntmaxSolver(Terms terms, Unknown unknown, RowIn<T> z, T m) : terms_(terms), unknown_(unknown), top_(C(m)) {
        // Keys that may have weight are collected in a buffer. Whenever it is full, the root for those seen so
        // far raises the cut, below which no key can have weight, and most of them leave. If they stay, there
        // are many in the whole row, and passes over it are cheaper.
        std::array<C, capacity> buffer;
        std::size_t kept = 0;
        C cut = lowest_kept();
        bool dense = false;
        for (std::size_t begin = 0; begin < z.size() && !dense; begin += chunk) {
            const RowIn<T> part = z.subspan(begin, std::min(chunk, z.size() - begin));
            if (!(C(row_max<T>(part)) - top_ > cut)) continue;
            for (const T x : part) {
                buffer[kept] = C(x);
                kept += C(x) - top_ > cut;
            }
            if (kept + chunk <= capacity) continue;
            solve_buffer(buffer, kept);
            cut = lowest_kept();
            dense = kept > capacity / 2;
        }
        if (!dense) {
            solve_buffer(buffer, kept);
            settle([&](const auto& use) { use(padded(buffer, kept)); });
            return;
        }
        iterate(
            size<T>(z),
            [&] {
                EntmaxSums<A> total;
                for (std::size_t begin = 0; begin < z.size(); begin += capacity) {
                    const auto part =
                        sums(widened<C>(z.subspan(begin, std::min(capacity, z.size() - begin)), buffer));
                    total.q += part.q;
                    total.slope += part.slope;
                    total.count += part.count;
                    total.smallest = std::min(total.smallest, part.smallest);
                }
                return total;
            },
            [](std::size_t) {});
        settle([&](const auto& use) {
            for (std::size_t begin = 0; begin < z.size(); begin += capacity)
                use(widened<C>(z.subspan(begin, std::min(capacity, z.size() - begin)), buffer));
        });
    }

    /// Writes the weights.
    void write(RowIn<T> z, RowOut<T> out) const {
        using P = Packet<C>;
        const P zero = C(0);
        if (has_edge_) {
            const EntmaxRoot<C> root(static_cast<Accumulator<C>>(edge_.a()));
            const P edge = static_cast<C>(edge_.edge()), last = static_cast<C>(edge_.weight()),
                    a = static_cast<C>(edge_.a()), power = static_cast<C>(edge_.power());
            write_parts(z, out, static_cast<C>(edge_.edge()), [&](auto x) {
                const auto p = root(madd(a, x - edge, power));
                return select_below(x, edge, zero, select_below(edge, x, p, last));
            });
            return;
        }
        const P b = slope(), factor = static_cast<C>(unknown_.leading_weight(sum_)), top = top_;
        write_parts(z, out, top_ + lowest_kept(), [&](auto x) { return terms_(b * (x - top)).v[0] * factor; });
    }

    /// What `Entmax::threshold` tells.
    EntmaxThreshold<Accumulator<T>> threshold(RowIn<T> z) const {
        EntmaxThreshold<Accumulator<T>> result;
        result.steps = steps_;
        result.converged = converged_;
        if (has_edge_) {
            const A a = edge_.a(), power = edge_.power() + a * (A(top_) - edge_.edge());
            result.theta = static_cast<Accumulator<T>>(std::max(A(0), (1 - power) / a));
            result.residual = static_cast<Accumulator<T>>(edge_.residual());
            result.steps += edge_.passes();
            result.support = std::count_if(z.begin(), z.end(), [&](T x) { return A(x) >= edge_.edge(); });
            return result;
        }
        result.theta = static_cast<Accumulator<T>>(unknown_.theta());
        result.residual = static_cast<Accumulator<T>>(unknown_.residual(sum_));
        const C b = slope();
        result.support =
            std::count_if(z.begin(), z.end(), [&](T x) { return C(1) + b * (C(x) - top_) > C(0); });
        return result;
    }

private:
    static constexpr std::size_t capacity = 1024, chunk = 64; // keys: in the buffer, looked at together
    static constexpr int max_steps = 200;

    static C clamped(A b) { return static_cast<C>(std::min(b, A(std::numeric_limits<C>::max()))); }
    C slope() const { return clamped(unknown_.b()); }
    /// Keys at or below have r <= 0, whatever is still to come; a little lower because of rounding.
    C lowest_kept() const { return -(1 + 4 * std::numeric_limits<C>::epsilon()) / clamped(unknown_.safe_b()); }

    /// x as a row of U, in `buffer` where that is another scalar.
    template <Real U, Real V, std::size_t N>
    static RowIn<U> widened(RowIn<V> x, std::array<U, N>& buffer) {
        if constexpr (std::same_as<U, V>) {
            return x;
        } else {
            std::transform(x.begin(), x.end(), buffer.begin(), [](V y) { return U(y); });
            return {buffer.data(), x.size()};
        }
    }

    /// Writes weight(x) of every key above `cut` and 0 elsewhere.
    template <class Weight>
    void write_parts(RowIn<T> z, RowOut<T> out, C cut, Weight&& weight) const {
        using P = Packet<C>;
        const P smallest = C(std::numeric_limits<T>::min()), zero = C(0);
        std::array<C, chunk> part;
        for (std::size_t begin = 0; begin < z.size(); begin += chunk) {
            const RowIn<T> logits = z.subspan(begin, std::min(chunk, z.size() - begin));
            const RowOut<T> weights = out.subspan(begin, logits.size());
            if (!(C(row_max<T>(logits)) >= cut)) {
                std::fill(weights.begin(), weights.end(), T(0));
                continue;
            }
            const RowIn<C> x = widened<C>(logits, part);
            for_each_lane<C>(size<C>(x), [&](const auto& lane) {
                const auto p = weight(lane(x.data(), -std::numeric_limits<C>::infinity()));
                lane.store(part.data(), select_below(p, smallest, zero, p));
            });
            std::transform(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(logits.size()),
                           weights.begin(), [](C p) { return static_cast<T>(p); });
        }
    }

    /// For a >= 1 the weights from the edge of the support, near where the root for X has it.
    template <class Parts>
    void settle(Parts&& for_each_part) {
        if constexpr (std::same_as<Unknown, WeightPower<A>>) {
            if (unknown_.a() < 1) return;
            std::array<A, capacity> room;
            const auto parts = [&](const auto& use) {
                for_each_part([&](RowIn<C> part) { use(widened<A>(part, room)); });
            };
            const A b = unknown_.b(), top = A(top_);
            A edge = top;
            parts([&](RowIn<A> part) {
                for (const A x : part) edge = 1 + b * (x - top) > 0 ? std::min(edge, x) : edge;
            });
            edge_ = EntmaxEdge<A>(unknown_.a());
            has_edge_ = true;
            converged_ =
                edge_.solve(parts, top, edge, unknown_.x() + unknown_.a() * (edge - top)) && converged_;
        }
    }

    /// Whole packets, because a partial one is slow to load; keys at -inf have no weight.
    static RowIn<C> padded(std::array<C, capacity>& buffer, std::size_t kept) {
        constexpr auto packet = static_cast<std::size_t>(Packet<C>::size);
        static_assert(capacity % packet == 0);
        const std::size_t whole = (kept + packet - 1) / packet * packet;
        std::fill(buffer.begin() + static_cast<std::ptrdiff_t>(kept),
                  buffer.begin() + static_cast<std::ptrdiff_t>(whole), -std::numeric_limits<C>::infinity());
        return {buffer.data(), whole};
    }

    EntmaxSums<A> sums(RowIn<C> x) const {
        using P = Packet<C>;
        const P b = slope(), zero = C(0), one = C(1), top = top_;
        auto smallest = one;
        const auto [q, slope_sum, count] = sum_lanes<C, 3>(size<C>(x), [&](const auto& lane) {
            const auto c = b * (lane(x.data(), -std::numeric_limits<C>::infinity()) - top);
            const auto terms = terms_(c);
            if constexpr (Terms::steep && std::same_as<Unknown, WeightPower<A>>)
                smallest = min(smallest, select_below(zero, terms.v[1], one + c, one));
            return Packets<C, 3>{{terms.v[0], terms.v[1], select_below(zero, terms.v[1], one, zero)}};
        });
        return {q, slope_sum, count, A(reduce_min(smallest))};
    }

    /// Steps until the sum is right or no longer gets better; after each, `leave(count)` may drop keys, `count`
    /// of which had r > 0.
    template <class Sums, class Leave>
    void iterate(Index n, Sums&& evaluate, Leave&& leave) {
        unknown_.begin(n);
        converged_ = false;
        for (int i = 0; i < max_steps && !converged_; ++i) {
            ++steps_;
            const EntmaxSums<A> sums = evaluate();
            sum_ = sums.q;
            converged_ = !unknown_.step(sums, 2 * A(std::numeric_limits<C>::epsilon()));
            leave(static_cast<std::size_t>(sums.count));
        }
    }
    void solve_buffer(std::array<C, capacity>& buffer, std::size_t& kept) {
        const auto compact = [&] {
            const C cut = lowest_kept();
            std::size_t count = 0;
            for (std::size_t i = 0; i < kept; ++i) {
                const C x = buffer[i];
                buffer[count] = x;
                count += x - top_ > cut;
            }
            kept = count;
        };
        iterate(
            static_cast<Index>(kept), [&] { return sums(padded(buffer, kept)); },
            [&](std::size_t count) {
                if (kept > chunk && count < kept / 2) compact();
            });
        if (kept + chunk > capacity) compact();
    }

    Terms terms_;
    Unknown unknown_;
    C top_;
    A sum_ = 1;
    int steps_ = 0;
    bool converged_ = false;
    EntmaxEdge<A> edge_{A(1)};
    bool has_edge_ = false;
};

} // namespace detail

} // namespace v0_2
} // namespace attnscope
