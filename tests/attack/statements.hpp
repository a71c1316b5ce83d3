// Every sharp statement of docs/bounds.md by its formula, apart from the library, for numbers of any precision.
#pragma once

#include "point.hpp"

#include <boost/math/constants/constants.hpp>

#include <array>
#include <bit>

namespace attack {

template <bool Upper>
struct Lemma1 {
    template <class S>
    static Sides<S> at(Point point) {
        std::vector<S> f = point.positives<S>(point.size());
        const S kappa = largest(f) / smallest(f), others(static_cast<int>(f.size()) - 1), total = sum(f);
        if (Upper) return at_most<S>(largest(f) / total, 1 / (1 + others / kappa));
        return at_least<S>(smallest(f) / total, 1 / (1 + others * kappa));
    }
};

template <bool Upper>
struct Corollary1 {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const S temperature = point.positive<S>();
        std::vector<S> z = point.reals<S>(point.size());
        for (S& value : z) value /= temperature;
        const S spread = range(z), others(static_cast<int>(z.size()) - 1);
        const std::vector<S> p = softmax(z);
        if (Upper) return at_most<S>(largest(p), 1 / (1 + others * exp(S(-spread))));
        return at_least<S>(smallest(p), 1 / (1 + others * exp(spread)));
    }
};

template <bool Upper>
struct Box {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const std::size_t n = point.size();
        std::vector<S> low, high, z;
        for (std::size_t i = 0; i < n; ++i) {
            low.push_back(point.real<S>());
            high.push_back(low.back() + point.positive<S>());
            z.push_back(low.back() + point.share<S>() * (high.back() - low.back()));
        }
        S others(0);
        for (std::size_t j = 1; j < n; ++j)
            others += Upper ? exp(S(low[j] - high[0])) : exp(S(high[j] - low[0]));
        const S limit = 1 / (1 + others), p = softmax(z)[0];
        return Upper ? at_most<S>(p, limit) : at_least<S>(p, limit);
    }
};

template <bool Upper>
struct Ssmax {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        using std::log;
        const S s = point.positive<S>();
        const std::vector<S> z = descending(point.reals<S>(point.size()));
        const S n(static_cast<int>(z.size())), beta = s * log(n);
        std::vector<S> scaled;
        for (const S& value : z) scaled.push_back(beta * value);
        const S p1 = largest(softmax(scaled));
        if (Upper) return at_most<S>(p1, 1 / (1 + (n - 1) * exp(S(-beta * range(z)))));
        return at_least<S>(p1, 1 / (1 + (n - 1) * exp(S(-beta * (z[0] - z[1])))));
    }
};

template <bool Upper>
struct CriticalTemperature {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        using std::log;
        const S beta = point.positive<S>();
        const std::vector<S> z = descending(point.reals<S>(point.size()));
        std::vector<S> scaled;
        for (const S& value : z) scaled.push_back(beta * value);
        const S p1 = largest(softmax(scaled));
        S inverse(std::numeric_limits<double>::max()); // 1/beta*
        S best(1);
        for (std::size_t k = 2; k <= z.size(); ++k) {
            const S gap = z[0] - z[k - 1], count(static_cast<int>(k));
            inverse = std::min(inverse, S(gap / log(count)));
            best = std::min(best, S(1 / (1 + (count - 1) * exp(S(-beta * gap)))));
        }
        if (Upper) return at_most<S>(p1, best);
        S total(0);
        for (std::size_t k = 1; k <= z.size(); ++k)
            total += exp(S(-beta * inverse * log(S(static_cast<int>(k)))));
        return at_least<S>(p1, 1 / total);
    }
};

template <bool Upper>
struct GapCounting {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const S first = point.positive<S>(), second = first + point.positive<S>();
        const std::vector<S> z = descending(point.reals<S>(point.size()));
        S least(1), most(1); // of 1/p1: the largest stands at 0
        for (std::size_t i = 1; i < z.size(); ++i) {
            const S gap = z[0] - z[i];
            least += exp(S(-(gap <= first ? first : gap <= second ? second : std::max(range(z), second))));
            most += exp(S(-(gap <= first ? S(0) : gap <= second ? first : second)));
        }
        const S p1 = largest(softmax(z));
        return Upper ? at_most<S>(p1, 1 / least) : at_least<S>(p1, 1 / most);
    }
};

template <bool Upper>
struct LogNPhase {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const std::vector<S> z = descending(point.reals<S>(point.size()));
        const S others(static_cast<int>(z.size()) - 1), nearest = z[0] - z[1], farthest = range(z);
        S mean(0), above(0);
        for (std::size_t i = 1; i < z.size(); ++i) {
            mean += (z[0] - z[i]) / others;
            above += z[i] - z.back();
        }
        const S p1 = largest(softmax(z)), width = (farthest - nearest) * others;
        if (Upper) return at_most<S>(p1, 1 / (1 + others * exp(S(-mean))));
        const S near = width > 0 ? S(above / width) : S(1);
        return at_least<S>(p1, 1 / (1 + others * (near * exp(S(-nearest)) + (1 - near) * exp(S(-farthest)))));
    }
};

/// E p1 where the other keys have one of two weights relative to the largest, independently.
template <bool Upper>
struct SphereKeys {
    template <class S>
    static Sides<S> at(Point point) {
        using std::pow;
        const int n = static_cast<int>(point.size());
        const S low = point.share<S>(), high = point.share<S>(), share = point.share<S>();
        S expected(0), ways(1); // of k of n-1 keys being high
        for (int k = 0; k < n; ++k) {
            S chance = ways;
            for (int i = 0; i < n - 1; ++i) chance *= i < k ? share : S(1 - share);
            expected += chance / (1 + k * high + (n - 1 - k) * low);
            ways = ways * (n - 1 - k) / (k + 1);
        }
        const S mu = share * high + (1 - share) * low;
        if (!Upper) return at_least<S>(expected, 1 / (1 + (n - 1) * mu));
        S sum(0); // (1 - (1-mu)^n)/mu = sum (1-mu)^k, which divides nothing by a small mu
        for (int k = 0; k < n; ++k) sum = 1 + (1 - mu) * sum;
        return at_most<S>(expected, sum / n);
    }
};

/// A row of alpha-entmax, its keys that are near enough to have weight, and how many have.
template <class S>
struct Entmax {
    S alpha, power;
    std::vector<S> z, p;
    int support = 0;

    explicit Entmax(Point& point) : alpha(S(1.5) + S(3) * point.share<S>()), power(1 / (alpha - 1)) {
        using std::pow;
        z = descending(point.reals<S>(point.size()));
        S low = z[0] - power, high = z[0]; // of the threshold below which a logit has no weight
        for (int step = 0; step < std::numeric_limits<S>::digits + 4; ++step) {
            const S middle = (low + high) / 2;
            S total(0);
            for (const S& value : z)
                if (value > middle) total += pow(S((alpha - 1) * (value - middle)), power);
            (total > 1 ? low : high) = middle;
        }
        for (const S& value : z) {
            support += value > low ? 1 : 0;
            p.push_back(value > low ? S(pow(S((alpha - 1) * (value - low)), power)) : S(0));
        }
    }
    int within(const S& reach) const {
        int count = 0;
        for (const S& value : z) count += z[0] - value < reach ? 1 : 0;
        return count;
    }
};

template <bool Upper>
struct EntmaxSupport {
    template <class S>
    static Sides<S> at(Point point) {
        using std::pow;
        const Entmax<S> row(point);
        // A key at the very edge has a weight that no sum shows.
        const int most = row.within(row.power * (1 + S(1e-6)));
        if (Upper) return at_most<S>(S(row.support), S(most));
        const S reach = pow(S(most), S(1 - row.alpha)) * row.power;
        return at_least<S>(S(row.support), S(row.within(reach * (1 - S(1e-6)))));
    }
};

struct EntmaxNonDispersion {
    template <class S>
    static Sides<S> at(Point point) {
        using std::log;
        const Entmax<S> row(point);
        return at_most<S>(entropy(row.p), log(S(row.within(row.power * (1 + S(1e-6))))));
    }
};

struct EntropyFloorNorm {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        using std::log;
        using std::sqrt;
        std::vector<S> z = point.reals<S>(point.size());
        const S n(static_cast<int>(z.size())), mean = sum(z) / n;
        for (S& value : z) value -= mean;
        const S sigma = length(z), b = exp(S(-sigma * sqrt(S(n / (n - 1)))));
        const S floor = log(S(1 + (n - 1) * b)) + sigma * sqrt(S(n * (n - 1))) * b / (1 + (n - 1) * b);
        return at_least<S>(entropy(softmax(z)), floor);
    }
};

struct EntropyFloorRange {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        using std::log;
        const std::vector<S> z = point.reals<S>(point.size());
        const S spread = range(z), b = exp(S(-spread));
        S floor(std::numeric_limits<double>::max());
        for (std::size_t k = 1; k < z.size(); ++k) {
            const S rest(static_cast<int>(z.size() - k)), mass = S(static_cast<int>(k)) + rest * b;
            floor = std::min(floor, S(log(mass) + rest * spread * b / mass));
        }
        return at_least<S>(entropy(softmax(z)), floor);
    }
};

template <bool Upper>
struct EntropyMaxWeight {
    template <class S>
    static Sides<S> at(Point point) {
        using std::log;
        const std::vector<S> p = descending(softmax(point.reals<S>(point.size())));
        if (Upper) {
            const S rest = sum(std::vector<S>(p.begin() + 1, p.end())), others(static_cast<int>(p.size()) - 1);
            return at_most<S>(entropy(p), entropy(std::vector<S>{p[0], rest}) + rest * log(others));
        }
        // As many keys at p1 as there is room for, and one with what is left.
        int count = 1;
        while (S(count + 1) * p[0] <= 1) ++count;
        const S left = std::max(S(0), S(1 - S(count) * p[0]));
        return at_least<S>(entropy(p), (left > 0 ? S(-left * log(left)) : S(0)) - S(count) * p[0] * log(p[0]));
    }
};

struct ScoreDeficit {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const S temperature = point.positive<S>();
        std::vector<S> z = point.reals<S>(point.size());
        const S top = largest(z), x = S(static_cast<int>(z.size()) - 1) / exp(S(1));
        S w(1); // Lambert's W of x by Newton's method
        for (int step = 0; step < 80; ++step) w -= (w * exp(w) - x) / (exp(w) * (w + 1));
        std::vector<S> scaled;
        for (const S& value : z) scaled.push_back((value - top) / temperature);
        const std::vector<S> p = softmax(scaled);
        S deficit(0);
        for (std::size_t i = 0; i < z.size(); ++i) deficit += p[i] * (top - z[i]);
        const S spread = range(z) / temperature, others(static_cast<int>(z.size()) - 1);
        const S limit = spread <= 1 + w ? S(spread * others / (exp(spread) + others)) : w;
        return at_most<S>(deficit, temperature * limit, temperature + range(z));
    }
};

struct SinkNecessity {
    template <class S>
    static Sides<S> at(Point point) {
        const std::vector<S> p = point.positives<S>(point.size());
        using std::abs;
        S inside(std::numeric_limits<double>::max()), outside = inside, output(0), mass(0), size(0);
        for (std::size_t i = 0; i < p.size(); ++i) {
            const S height = point.real<S>();
            S& least = i == 0 ? inside : outside;
            least = std::min(least, height);
            output += p[i] * height;
            size += p[i] * abs(height);
            if (i == 0) mass += p[i];
        }
        if (!(outside > inside)) return at_least<S>(mass, S(0));
        const S gap = outside - inside;
        return at_least<S>(mass, (outside * sum(p) - output) / gap,
                           sum(p) + (abs(outside) * sum(p) + size) / gap);
    }
};

// ---- selection ------------------------------------------------------------------------------------------

/// n weighted tokens of the plane, and how many of them are selected.
template <class S>
struct Tokens {
    std::vector<S> p;
    Rows<S> x, y;
    std::size_t selected;

    explicit Tokens(Point& point, std::size_t n) : p(point.positives<S>(n)) {
        selected = static_cast<std::size_t>(point.integer(1, static_cast<int>(n) - 1));
        for (std::size_t i = 0; i < n; ++i) {
            x.push_back(point.reals<S>(2));
            y.push_back({p[i] * x[i][0], p[i] * x[i][1]});
        }
    }
};

template <class S>
std::vector<S> plus(const std::vector<S>& a, const std::vector<S>& b, const S& factor) {
    std::vector<S> c = a;
    for (std::size_t i = 0; i < c.size(); ++i) c[i] += factor * b[i];
    return c;
}

template <bool Upper, bool Cumulative>
struct Theorem1Fixed {
    template <class S>
    static Sides<S> at(Point point) {
        using std::abs;
        using std::sqrt;
        const std::size_t n = point.size();
        const Tokens<S> tokens(point, n);
        std::vector<S> s(2, S(0)), rest = s;
        S mass(0), tail(0), spread(0), imbalance(0), lengths(0), squares(0), contrast(0), d(0), scale(0);
        for (std::size_t i = 0; i < n; ++i) {
            const bool inside = i < tokens.selected;
            (inside ? mass : tail) += tokens.p[i];
            auto& total = inside ? s : rest;
            total = plus(total, tokens.y[i], S(1));
            scale += S(static_cast<int>(n)) * length(tokens.y[i]);
        }
        const std::vector<S> m =
            plus(std::vector<S>(2, S(0)), rest, S(1) / S(static_cast<int>(n - tokens.selected)));
        const S size = length(s), others(static_cast<int>(n - tokens.selected));
        for (std::size_t i = tokens.selected; i < n; ++i) {
            const S own = length(tokens.y[i]);
            lengths += own;
            const S apart = length(plus(tokens.y[i], m, S(-1)));
            squares += apart * apart;
            contrast += abs(S(size - own));
            imbalance += abs(S(mass - tokens.p[i]));
            d += length(plus(s, tokens.y[i], S(-1)));
            for (std::size_t j = 0; j < tokens.selected; ++j)
                spread = std::max(spread, length(plus(tokens.x[i], tokens.x[j], S(-1))));
        }
        if (!Cumulative) d = length(plus(rest, s, S(-1)));
        const S factor = Cumulative ? imbalance : abs(S(mass - tail));
        const S centre = size / mass * factor, reach = tail * spread, all = length(rest);
        scale += centre + reach; // which may be far more than the tokens, and cancel
        if (!Cumulative) {
            if (Upper) return at_most<S>(d, std::min(S(centre + reach), S(size + all)), scale);
            return at_least<S>(d, std::max(S(centre - reach), abs(S(size - all))), scale);
        }
        const S mean = length(plus(std::vector<S>{others * s[0], others * s[1]}, rest, S(-1)));
        if (Upper)
            return at_most<S>(d,
                              std::min({S(centre + reach), S(others * size + lengths),
                                        S(sqrt(S(mean * mean + others * squares)))}),
                              scale);
        return at_least<S>(d, std::max({S(centre - reach), contrast, mean}), scale);
    }
};

template <class S>
struct SubsetCase {
    S number{0}, length{0}, second{0}, fourth{0};
    std::vector<S> mean = std::vector<S>(2, S(0));
};

/// s - y_i over all sets of N without i, by i and by whether the longest is inside.
template <class S>
std::vector<SubsetCase<S>> subset_cases(const Tokens<S>& tokens, S& subsets) {
    const std::size_t n = tokens.p.size();
    std::size_t longest = 0; // the first of those that are equal in double
    for (std::size_t i = 1; i < n; ++i)
        if (length(tokens.y[i]) > length(tokens.y[longest]) * S(1 + 1e-14)) longest = i;
    std::vector<SubsetCase<S>> cases(2 * n);
    subsets = S(0);
    for (unsigned bits = 0; bits < 1u << n; ++bits) {
        if (static_cast<std::size_t>(std::popcount(bits)) != tokens.selected) continue;
        subsets += 1;
        std::vector<S> s(2, S(0));
        for (std::size_t j = 0; j < n; ++j)
            if (bits >> j & 1u) s = plus(s, tokens.y[j], S(1));
        for (std::size_t i = 0; i < n; ++i) {
            if (bits >> i & 1u) continue;
            SubsetCase<S>& found = cases[2 * i + (bits >> longest & 1u)];
            const std::vector<S> apart = plus(s, tokens.y[i], S(-1));
            const S own = length(apart);
            found.number += 1;
            found.length += own;
            found.second += own * own;
            found.fourth += own * own * own * own;
            found.mean = plus(found.mean, apart, S(1));
        }
    }
    return cases;
}

template <bool Upper>
struct Theorem1Random {
    template <class S>
    static Sides<S> at(Point point) {
        using std::sqrt;
        const Tokens<S> tokens(point, std::min<std::size_t>(point.size(), 6));
        S subsets(0), d(0), limit(0);
        for (const SubsetCase<S>& found : subset_cases(tokens, subsets)) {
            if (!(found.number > 0)) continue;
            d += found.length;
            const S m2 = found.second / found.number, m4 = found.fourth / found.number;
            const S by_moments = m4 > 0 ? S(m2 * sqrt(S(m2 / m4))) : S(0);
            limit += found.number *
                     (Upper ? S(sqrt(m2)) : std::max(S(length(found.mean) / found.number), by_moments));
        }
        d /= subsets;
        limit /= subsets;
        const S size = S(36) * longest(tokens.y);
        return Upper ? at_most<S>(d, limit, size) : at_least<S>(d, limit, size);
    }
};

template <bool Upper>
struct Corollary2 {
    template <class S>
    static Sides<S> at(Point point) {
        const Tokens<S> tokens(point, std::min<std::size_t>(point.size(), 6));
        S subsets(0), d(0);
        for (const SubsetCase<S>& found : subset_cases(tokens, subsets)) d += found.length;
        d /= subsets;
        const S n(static_cast<int>(tokens.p.size())), count(static_cast<int>(tokens.selected));
        std::vector<S> o(2, S(0));
        S lengths(0), sums(0);
        for (const auto& y : tokens.y) o = plus(o, y, S(1));
        for (const auto& y : tokens.y) {
            lengths += length(y);
            sums += length(plus(y, o, S(-count / (n + count - 1))));
        }
        if (Upper) return at_most<S>(d, (count + 1) * (1 - count / n) * lengths, n * lengths);
        return at_least<S>(d, (n - count) * (n + count - 1) / (n * (n - 1)) * sums, n * lengths);
    }
};

/// One token that sees two others, in the plane or in space: its probability to be within r, exactly.
template <bool Upper>
struct Theorem2 {
    template <class S>
    static Sides<S> at(Point point) {
        using std::acos;
        using std::exp;
        using std::sqrt;
        S a = point.positive<S>(), b = point.positive<S>();
        if (b > a) std::swap(a, b);
        const bool plane = point.integer(0, 1) == 0;
        const S pi = boost::math::constants::pi<S>(), d(plane ? 2 : 3);
        const S r = (a + b) * point.share<S>() * S(1.25);
        if (!(r > 0)) return at_most<S>(S(0), S(1));
        const S cosine = std::clamp(S((r * r - a * a - b * b) / (2 * a * b)), S(-1), S(1));
        const S inside = plane ? S(1 - acos(cosine) / pi) : S((1 + cosine) / 2);
        const S v = a * a + b * b, pairs = 2 * a * a * b * b, variance = 2 / d * pairs, square = r * r;
        S best(1);
        if (Upper ? square < v : square > v) {
            const S gap = v - square;
            best = variance / (variance + gap * gap);
            const S start = d * gap / (2 * pairs); // negative above
            for (int step = -24; step <= 24; ++step) {
                const S theta = start * exp(S(step) / 8);
                const S exponent = theta * b * b + theta * (1 - 2 * theta * b * b / d) * a * a;
                best = std::min(best, S(exp(S(theta * square - exponent))));
            }
        }
        if (Upper) {
            const S chi = plane ? S(sqrt(pi) / 2) : S(sqrt(S(2) / 3) * 2 / sqrt(pi));
            const S gap = std::max(a, S(sqrt(v) * chi)) - r;
            if (gap > 0) best = std::min(best, S(exp(S(-(d - 1) * gap * gap / (2 * b * b)))));
            return at_most<S>(inside, r <= a - b ? S(0) : best);
        }
        return at_least<S>(inside, r > a + b ? S(1) : S(1 - std::min(best, S(v / square))));
    }
};

struct TruncationGap {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const std::vector<S> z = descending(point.reals<S>(point.size()));
        const int n = static_cast<int>(z.size()), k = point.integer(1, n - 1);
        const std::vector<S> p = softmax(z);
        const auto at = static_cast<std::size_t>(k);
        S tail(0);
        for (std::size_t i = at; i < p.size(); ++i) tail += p[i];
        return at_most<S>(tail, 1 / (1 + S(k) / S(n - k) * exp(S(z[at - 1] - z[at]))));
    }
};

struct TruncationOutput {
    template <class S>
    static Sides<S> at(Point point) {
        Tokens<S> tokens(point, point.size());
        const S total = sum(tokens.p);
        std::vector<S> head(2, S(0)), output = head;
        S mass(0), tail(0), spread(0);
        for (std::size_t i = 0; i < tokens.p.size(); ++i) {
            (i < tokens.selected ? mass : tail) += tokens.p[i];
            output = plus(output, tokens.y[i], S(1 / total));
            if (i >= tokens.selected) continue;
            head = plus(head, tokens.y[i], S(1));
            for (std::size_t j = tokens.selected; j < tokens.p.size(); ++j)
                spread = std::max(spread, length(plus(tokens.x[i], tokens.x[j], S(-1))));
        }
        return at_most<S>(length(plus(output, head, S(-1 / mass))), tail / total * spread,
                          S(4) * longest(tokens.x));
    }
};

/// What is known of a block of logits: no more than u, this mean, at most this variance.
template <class S>
S most_block_mass(const std::vector<S>& z, S u, S more_variance) {
    using std::exp;
    const S n(static_cast<int>(z.size())), mean = sum(z) / n;
    S variance = more_variance;
    for (const S& x : z) variance += (x - mean) * (x - mean) / n;
    const S above = u - mean;
    if (!(above > 0) || !(variance > 0)) return n * exp(u);
    const S w = variance / (above * above + variance);
    return n * ((1 - w) * exp(S(mean - variance / above)) + w * exp(u));
}

struct BlockRecall {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const S read = point.positive<S>();
        const S more = std::max(point.real<S>(), S(0)), variance = std::max(point.real<S>(), S(0));
        std::vector<S> z = point.reals<S>(point.size());
        const S top = largest(z);
        S mass(0);
        for (S& x : z) mass += exp(x -= top);
        return at_least<S>(read / (read + mass), read / (read + most_block_mass<S>(z, more, variance)));
    }
};

struct BlockOutput {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const S read = point.positive<S>();
        const std::size_t n = point.size(), first = (n + 1) / 2;
        S mass = read, spread(0), limit_mass = read, limit_spread(0), longest_value(0);
        std::vector<S> total(2, S(0));
        struct Block {
            S least, most, reach;
        };
        std::vector<Block> blocks;
        for (const std::size_t keys : {first, n - first}) {
            if (keys == 0) continue;
            std::vector<S> z = point.reals<S>(keys), centre(2, S(0));
            for (S& x : z) x = std::clamp(x, S(-40), S(40));
            std::vector<std::vector<S>> values;
            for (std::size_t i = 0; i < keys; ++i) {
                values.push_back(point.reals<S>(2)); // from o_I
                centre = plus(centre, values[i], S(S(1) / S(static_cast<int>(keys))));
                total = plus(total, values[i], exp(z[i]));
                mass += exp(z[i]);
                longest_value = std::max(longest_value, length(values[i]));
            }
            S radius(0);
            for (const auto& value : values) radius = std::max(radius, length(plus(value, centre, S(-1))));
            const S count(static_cast<int>(keys));
            blocks.push_back({count * exp(S(sum(z) / count)), most_block_mass<S>(z, largest(z), S(0)),
                              length(centre) + radius});
        }
        // All corners of the box of masses.
        for (std::size_t corner = 0; corner < (std::size_t(1) << blocks.size()); ++corner) {
            S all = read, far(0);
            for (std::size_t b = 0; b < blocks.size(); ++b) {
                const S own = (corner >> b & 1) != 0 ? blocks[b].most : blocks[b].least;
                all += own;
                far += own * blocks[b].reach;
            }
            if (far * limit_mass > limit_spread * all) limit_mass = all, limit_spread = far;
        }
        spread = length(total);
        return at_most<S>(spread / mass, limit_spread / limit_mass, S(4) * longest_value);
    }
};

struct MissedTokens {
    template <class S>
    static Sides<S> at(Point point) {
        const int n = static_cast<int>(point.size());
        const int selected = point.integer(1, n - 1);
        std::vector<bool> useful;
        for (int i = 0; i < n; ++i) useful.push_back(point.next() > 0);
        int useless = 0, inversions = 0, missed = 0, all = 0;
        for (int i = 0; i < n; ++i) {
            const bool own = useful[static_cast<std::size_t>(i)];
            (own ? inversions : useless) += own ? useless : 1;
            all += own ? 1 : 0;
            missed += own && i >= selected ? 1 : 0;
        }
        return at_most<S>(S(missed * (selected - all + missed)), S(inversions));
    }
};

// ---- sensitivity ----------------------------------------------------------------------------------------

template <class S>
S weight_limit(const std::vector<S>& p, const S& kappa) {
    const S p1 = largest(p), keys(static_cast<int>(p.size()));
    return std::min({S(1 / (2 + (keys - 2) / kappa)), p1, S(2 * p1 * rest_of(p))});
}

struct Corollary3 {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        const S temperature = point.positive<S>();
        std::vector<S> z = point.reals<S>(point.size());
        for (S& value : z) value /= temperature;
        const std::vector<S> p = softmax(z);
        return at_most<S>(diagonal_norm(p) / temperature, weight_limit(p, S(exp(range(z)))) / temperature,
                          1 / temperature);
    }
};

struct Lemma2 {
    template <class S>
    static Sides<S> at(Point point) {
        using std::abs;
        const std::vector<S> f = point.positives<S>(point.size()), slope = point.reals<S>(point.size());
        const S total = sum(f);
        std::vector<S> p;
        S steepest(0);
        for (std::size_t i = 0; i < f.size(); ++i) {
            p.push_back(f[i] / total);
            steepest = std::max(steepest, abs(slope[i]));
        }
        Rows<S> jacobian(f.size(), std::vector<S>(f.size()));
        for (std::size_t i = 0; i < f.size(); ++i)
            for (std::size_t j = 0; j < f.size(); ++j)
                jacobian[i][j] = p[i] * (S(i == j ? 1 : 0) - p[j]) * slope[j];
        return at_most<S>(spectral_norm(jacobian), steepest * weight_limit(p, S(largest(f) / smallest(f))),
                          steepest);
    }
};

struct FiniteDifference {
    template <class S>
    static Sides<S> at(Point point) {
        using std::sqrt;
        using std::tanh;
        const S temperature = point.positive<S>(), eps = point.positive<S>();
        std::vector<S> z = point.reals<S>(point.size()), v = point.reals<S>(point.size()), moved;
        const S size = length(v);
        if (!(size > 0)) return at_most<S>(S(0), S(1));
        for (std::size_t i = 0; i < z.size(); ++i) {
            moved.push_back((z[i] + eps * v[i] / size) / temperature);
            z[i] /= temperature;
        }
        const S root = sqrt(S(2));
        return at_most<S>(length(plus(softmax(moved), softmax(z), S(-1))) / eps,
                          root / eps * tanh(S(eps / (2 * root * temperature))),
                          (1 + largest(v)) / eps + 1 / temperature);
    }
};

struct LpLipschitz {
    template <class S>
    static Sides<S> at(Point point) {
        using std::abs;
        using std::pow;
        const S q = 1 + point.positive<S>(), share = abs(S(1 - 2 / q));
        const std::vector<S> p = softmax(point.reals<S>(point.size()));
        std::vector<S> x = point.reals<S>(point.size()), y;
        S mean(0), most(0);
        for (std::size_t i = 0; i < p.size(); ++i) {
            mean += p[i] * x[i];
            most = std::max(most, S(p[i] * (1 - p[i])));
        }
        for (std::size_t i = 0; i < p.size(); ++i) y.push_back(p[i] * (x[i] - mean));
        const auto norm = [&](const std::vector<S>& vector) {
            S top(0), total(0);
            for (const S& value : vector) top = std::max(top, abs(value));
            if (!(top > 0)) return top;
            for (const S& value : vector) total += pow(S(abs(value) / top), q);
            return S(top * pow(total, S(1 / q)));
        };
        const S own = norm(x);
        if (!(own > 0)) return at_most<S>(S(0), S(1));
        return at_most<S>(norm(y) / own, pow(S(2 * most), share) * pow(diagonal_norm(p), S(1 - share)));
    }
};

template <bool Upper>
struct JacobianInfinityToOne {
    template <class S>
    static Sides<S> at(Point point) {
        const std::vector<S> p = descending(softmax(point.reals<S>(std::min<std::size_t>(point.size(), 7))));
        S cut(0);
        for (unsigned bits = 0; bits < 1u << p.size(); ++bits) {
            S inside(0), outside(0);
            for (std::size_t i = p.size(); i-- > 0;) (bits >> i & 1u ? inside : outside) += p[i];
            cut = std::max(cut, S(4 * inside * outside));
        }
        const S exact = 4 * p[0] * rest_of(p);
        if (Upper) return at_most<S>(cut, 2 * p[0] > 1 ? exact : S(1));
        return at_least<S>(cut, 2 * p[0] > 1 ? exact : S(1 - p[0] * p[0]));
    }
};

struct SigmoidGradient {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        S most(0);
        for (const S& z : point.reals<S>(point.size())) {
            const S p = 1 / (1 + exp(S(-z)));
            most = std::max(most, S(p * (1 - p)));
        }
        return at_most<S>(most, S(1) / 4);
    }
};

template <bool Upper>
struct SpectralBracket {
    template <class S>
    static Sides<S> at(Point point) {
        const std::vector<S> s = descending(point.positives<S>(point.size()));
        S rest(0), squares(0);
        for (std::size_t j = 1; j < s.size(); ++j) {
            rest += s[j];
            squares += s[j] * s[j];
        }
        const S total = s[0] + rest, norm = diagonal_norm(s);
        if (Upper) return at_most<S>(norm, s[0] / total * (rest + s[1]), s[0]);
        return at_least<S>(norm, s[0] / total * (rest + squares / rest), s[0]);
    }
};

/// Two rows of logits of one temperature, and the range of their difference.
template <class S>
struct Moved {
    std::vector<S> z, error, p, q;
    S r;
    explicit Moved(Point& point) : z(point.reals<S>(point.size())), error(point.reals<S>(point.size())) {
        p = softmax(z);
        q = softmax(plus(z, error, S(1)));
        r = range(error);
    }
    S limit() const {
        using std::exp;
        using std::expm1;
        using std::tanh;
        const S tau = rest_of(p), grown = expm1(r);
        if (tau < 1 / (1 + exp(S(r / 2)))) return tau * (1 - tau) * grown / (1 + tau * grown);
        return tanh(S(r / 4));
    }
};

struct PerturbationTv {
    template <class S>
    static Sides<S> at(Point point) {
        const Moved<S> moved(point);
        return at_most<S>(total_variation(moved.p, moved.q), moved.limit());
    }
};

struct PerturbationKl {
    template <class S>
    static Sides<S> at(Point point) {
        using std::cosh;
        using std::log;
        using std::sinh;
        const Moved<S> moved(point);
        S kl(0);
        for (std::size_t i = 0; i < moved.p.size(); ++i)
            if (moved.p[i] > 0 && moved.q[i] > 0) kl += moved.p[i] * log(S(moved.p[i] / moved.q[i]));
        const S h = moved.r / 2;
        if (!(h > S(1e-3)) || h > 300) return at_most<S>(S(0), S(1)); // the two would be lost in rounding
        return at_most<S>(kl, log(S(sinh(h) / h)) + h * cosh(h) / sinh(h) - 1);
    }
};

struct PerturbationOutput {
    template <class S>
    static Sides<S> at(Point point) {
        const Moved<S> moved(point);
        Rows<S> values;
        std::vector<S> change(2, S(0));
        S diameter(0);
        for (std::size_t i = 0; i < moved.p.size(); ++i) {
            values.push_back(point.reals<S>(2));
            change = plus(change, values[i], S(moved.q[i] - moved.p[i]));
            for (std::size_t j = 0; j < i; ++j)
                diameter = std::max(diameter, length(plus(values[i], values[j], S(-1))));
        }
        return at_most<S>(length(change), diameter * moved.limit(), S(4) * longest(values));
    }
};

/// Values move as well: what they move by is the displacement.
struct CacheOutput {
    template <class S>
    static Sides<S> at(Point point) {
        const Moved<S> moved(point);
        Rows<S> values;
        std::vector<S> change(2, S(0));
        S diameter(0), displacement(0);
        for (std::size_t i = 0; i < moved.p.size(); ++i) {
            values.push_back(point.reals<S>(2));
            const std::vector<S> step = point.reals<S>(2);
            change = plus(change, values[i], S(moved.q[i] - moved.p[i]));
            change = plus(change, step, moved.q[i]);
            displacement = std::max(displacement, length(step));
            for (std::size_t j = 0; j < i; ++j)
                diameter = std::max(diameter, length(plus(values[i], values[j], S(-1))));
        }
        return at_most<S>(length(change), diameter * moved.limit() + displacement,
                          S(4) * (longest(values) + displacement));
    }
};

struct PerturbationGap {
    template <class S>
    static Sides<S> at(Point point) {
        const Moved<S> moved(point);
        const std::vector<S> after = plus(moved.z, moved.error, S(1)), sorted = descending(moved.z);
        const auto top =
            static_cast<std::size_t>(std::max_element(moved.z.begin(), moved.z.end()) - moved.z.begin());
        S others(std::numeric_limits<double>::lowest());
        for (std::size_t i = 0; i < after.size(); ++i)
            if (i != top) others = std::max(others, after[i]);
        return at_least<S>(after[top] - others, sorted[0] - sorted[1] - moved.r,
                           length(moved.z) + length(moved.error));
    }
};

/// Errors that are s c_i or -s c_i, all at once, |c_i| <= 1: each is s-sub-Gaussian.
template <bool Kl>
struct PerturbationMean {
    template <class S>
    static Sides<S> at(Point point) {
        using std::log;
        const S s = point.positive<S>();
        const std::vector<S> z = point.reals<S>(point.size()), p = softmax(z);
        std::vector<S> c;
        for (std::size_t i = 0; i < z.size(); ++i) c.push_back(S(std::clamp(point.next(), -1.0, 1.0)));
        S mean(0);
        for (const int sign : {-1, 1}) {
            const std::vector<S> q = softmax(plus(z, c, S(sign) * s));
            S kl(0);
            for (std::size_t i = 0; i < p.size(); ++i)
                if (p[i] > 0 && q[i] > 0) kl += p[i] * log(S(p[i] / q[i]));
            mean += (Kl ? kl : total_variation(p, q)) / 2;
        }
        // Of smaller ones nothing would be left but rounding.
        if (s < S(1e-4)) return at_most<S>(S(0), S(1));
        return at_most<S>(mean, Kl ? S(s * s / 2) : S(s / 2));
    }
};

/// The Jacobian of all outputs of a head in all tokens, or its limit from the sizes of the head alone; with a causal
/// mask or without.
template <bool DataFree>
struct TokenJacobian {
    template <class S>
    static Sides<S> at(Point point) {
        using std::sqrt;
        const std::size_t n = 1 + point.size() % 3;
        const bool causal = point.integer(0, 1) == 1;
        const Rows<S> wq = {point.reals<S>(2), point.reals<S>(2)}, wk = {point.reals<S>(2), point.reals<S>(2)},
                      wv = {point.reals<S>(2), point.reals<S>(2)};
        Rows<S> x, q, k, v, p, h, jacobian(2 * n, std::vector<S>(2 * n, S(0)));
        for (std::size_t i = 0; i < n; ++i) {
            x.push_back(point.reals<S>(2));
            q.push_back(times(transposed(wq), x[i]));
            k.push_back(times(transposed(wk), x[i]));
            v.push_back(times(transposed(wv), x[i]));
        }
        S a(0), c(0);
        for (std::size_t i = 0; i < n; ++i) {
            std::vector<S> z, o(2, S(0)), mean(2, S(0)), slope = times(wk, q[i]);
            const std::size_t seen = causal ? i + 1 : n;
            for (std::size_t j = 0; j < seen; ++j) z.push_back(q[i][0] * k[j][0] + q[i][1] * k[j][1]);
            p.push_back(softmax(z));
            p[i].resize(n, S(0));
            for (std::size_t j = 0; j < n; ++j) {
                o = plus(o, v[j], p[i][j]);
                mean = plus(mean, k[j], p[i][j]);
            }
            Rows<S> covariance(2, std::vector<S>(2, S(0)));
            for (std::size_t j = 0; j < n; ++j)
                for (std::size_t b = 0; b < 2; ++b)
                    for (std::size_t e = 0; e < 2; ++e)
                        covariance[b][e] += p[i][j] * (v[j][b] - o[b]) * (k[j][e] - mean[e]);
            Rows<S> own(2, std::vector<S>(2, S(0)));
            for (std::size_t b = 0; b < 2; ++b)
                for (std::size_t e = 0; e < 2; ++e)
                    own[b][e] = covariance[b][0] * wq[e][0] + covariance[b][1] * wq[e][1];
            a = std::max(a, exact_norm(own));
            h.push_back({});
            for (std::size_t j = 0; j < n; ++j) {
                Rows<S> block(2, std::vector<S>(2));
                for (std::size_t b = 0; b < 2; ++b)
                    for (std::size_t e = 0; e < 2; ++e) {
                        block[b][e] = p[i][j] * (wv[e][b] + (v[j][b] - o[b]) * slope[e]);
                        if (i == j) block[b][e] += own[b][e];
                        jacobian[2 * i + b][2 * j + e] = block[b][e];
                    }
                h[i].push_back(exact_norm(block));
                const S apart = length(plus(v[j], o, S(-1)));
                c += p[i][j] * p[i][j] * apart * apart * length(slope) * length(slope);
            }
        }
        if (DataFree) {
            Rows<S> scores(2, std::vector<S>(2));
            for (std::size_t b = 0; b < 2; ++b)
                for (std::size_t e = 0; e < 2; ++e) scores[b][e] = wq[b][0] * wk[e][0] + wq[b][1] * wk[e][1];
            const S root = sqrt(S(static_cast<int>(n))), radius = longest(x);
            const S limit = exact_norm(wv) * (root + (root + 1) * exact_norm(scores) * radius * radius);
            return at_most<S>(spectral_norm(jacobian), limit, S(8) * limit);
        }
        const S parts = a + nonnegative_norm(p) * exact_norm(wv) + sqrt(c);
        return at_most<S>(spectral_norm(jacobian), std::min(nonnegative_norm(h), parts), S(8) * parts);
    }
    /// Of two rows and columns.
    template <class S>
    static S exact_norm(const Rows<S>& m) {
        using std::sqrt;
        const S e = m[0][0] + m[1][1], f = m[0][0] - m[1][1], g = m[1][0] + m[0][1], h = m[1][0] - m[0][1];
        return (sqrt(S(e * e + h * h)) + sqrt(S(f * f + g * g))) / 2;
    }
};

struct RankCollapse {
    template <class S>
    static Sides<S> at(Point point) {
        Rows<S> p, x, mixed;
        for (int i = 0; i < 3; ++i) p.push_back(softmax(point.reals<S>(point.size())));
        for (std::size_t j = 0; j < point.size(); ++j) x.push_back(point.reals<S>(2));
        S delta(0), before(0), after(0);
        for (std::size_t i = 0; i < p.size(); ++i) {
            mixed.push_back(std::vector<S>(2, S(0)));
            for (std::size_t j = 0; j < x.size(); ++j) mixed[i] = plus(mixed[i], x[j], p[i][j]);
            for (std::size_t l = 0; l < i; ++l) {
                delta = std::max(delta, total_variation(p[i], p[l]));
                after = std::max(after, length(plus(mixed[i], mixed[l], S(-1))));
            }
        }
        for (std::size_t i = 0; i < x.size(); ++i)
            for (std::size_t j = 0; j < i; ++j) before = std::max(before, length(plus(x[i], x[j], S(-1))));
        return at_most<S>(after, delta * before, S(4) * longest(x));
    }
};

/// Two rows over common keys, and keys that one of them alone sees; or three rows that see the same.
template <bool Masks>
struct Dobrushin {
    template <class S>
    static Sides<S> at(Point point) {
        using std::exp;
        using std::sqrt;
        using std::tanh;
        const std::size_t n = point.size();
        Rows<S> z, p;
        for (std::size_t i = 0; i < 3; ++i) {
            z.push_back(point.reals<S>(n));
            p.push_back(softmax(z[i]));
        }
        if (!Masks) {
            S delta(0), by_range(0), common(0);
            for (std::size_t i = 0; i < 3; ++i)
                for (std::size_t j = 0; j < i; ++j) {
                    delta = std::max(delta, total_variation(p[i], p[j]));
                    by_range = std::max(by_range, S(tanh(S(range(plus(z[i], z[j], S(-1))) / 4))));
                }
            for (std::size_t c = 0; c < n; ++c) common += std::min({p[0][c], p[1][c], p[2][c]});
            return at_most<S>(delta, std::min(by_range, S(1 - common)));
        }
        const S first = point.share<S>(), second = point.share<S>(); // mass on the common keys
        if (!(first > 0 && second > 0)) return at_most<S>(S(0), S(1));
        S common(0);
        for (std::size_t c = 0; c < n; ++c) common += std::min(S(first * p[0][c]), S(second * p[1][c]));
        const S e = exp(S(range(plus(z[0], z[1], S(-1))) / 2)), bi = sqrt(first), bj = sqrt(second);
        const bool inner = bj * e > bi && bi * e > bj && e > 1;
        const S limit = inner ? S(1 - (2 * bi * bj * e - first - second) / (e * e - 1))
                              : std::max(S(1 - first), S(1 - second));
        return at_most<S>(S(1 - common), limit, inner ? S(1 + 1 / (e * e - 1)) : S(1));
    }
};

} // namespace attack
