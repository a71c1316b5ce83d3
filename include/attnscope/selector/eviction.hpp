// A cache of few keys, in the order of decoding: which keys are still there when a query comes.
#pragma once

#include <attnscope/attention/stored_head.hpp>
#include <attnscope/random.hpp>
#include <attnscope/selector/key_sets.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>

namespace attnscope {
inline namespace v0_2 {

/// Who decides which keys leave a cache. After every query it is told the weights that the query gave to the keys in the
/// cache, which sum to 1: observe(query, keys, weights). Before a query it is asked what each key is worth: worth(keys,
/// out). Those of least worth leave, NaN first, the older first among equals. Keys ascend. It knows nothing of later queries.
template <class P>
concept EvictionPolicy =
    requires(P& policy, std::span<const Index> keys, std::span<const double> weights, std::span<double> out) {
        policy.observe(Index(0), keys, weights);
        policy.worth(keys, out);
    };

/// The first `sinks` keys and the last ones (StreamingLLM).
/// Source. arXiv:2309.17453.
class KeepSinks {
public:
    /// Throws. `invalid_argument` unless sinks >= 0.
    explicit KeepSinks(Index sinks = 4) : sinks_(sinks) {
        detail::require(sinks >= 0, "KeepSinks", "sinks must be >= 0", sinks);
    }
    void observe(Index, std::span<const Index>, std::span<const double>) {}
    void worth(std::span<const Index> keys, std::span<double> out) const {
        for (std::size_t i = 0; i < keys.size(); ++i)
            out[i] = keys[i] < sinks_ ? std::numeric_limits<double>::infinity() : static_cast<double>(keys[i]);
    }

private:
    Index sinks_;
};

/// The `recent` last keys, and of the others those with the largest sum of weights over all queries so far (H2O).
/// Source. arXiv:2306.14048.
class HeavyHitters {
public:
    /// Throws. `invalid_argument` unless recent >= 1.
    explicit HeavyHitters(Index recent) : recent_(recent) {
        detail::require(recent >= 1, "HeavyHitters", "recent must be >= 1", recent);
    }
    void observe(Index, std::span<const Index> keys, std::span<const double> weights) {
        if (!keys.empty() && keys.back() >= static_cast<Index>(sums_.size()))
            sums_.resize(static_cast<std::size_t>(keys.back()) + 1);
        for (std::size_t i = 0; i < keys.size(); ++i) detail::at(sums_, keys[i]) += weights[i];
    }
    void worth(std::span<const Index> keys, std::span<double> out) const {
        const std::size_t old = keys.size() - std::min(keys.size(), static_cast<std::size_t>(recent_));
        for (std::size_t i = 0; i < keys.size(); ++i)
            out[i] = i >= old                                     ? std::numeric_limits<double>::infinity()
                     : keys[i] < static_cast<Index>(sums_.size()) ? detail::at(sums_, keys[i])
                                                                  : 0.0;
    }

private:
    Index recent_;
    std::vector<double> sums_;
};

/// The keys with the largest weights of the last query (TOVA). A key that it has not seen stays.
/// Source. arXiv:2401.06104.
class LastQuery {
public:
    void observe(Index, std::span<const Index> keys, std::span<const double> weights) {
        keys_.assign(keys.begin(), keys.end());
        weights_.assign(weights.begin(), weights.end());
    }
    void worth(std::span<const Index> keys, std::span<double> out) const {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            const auto at = std::lower_bound(keys_.begin(), keys_.end(), keys[i]);
            out[i] = at != keys_.end() && *at == keys[i] ? detail::at(weights_, at - keys_.begin())
                                                         : std::numeric_limits<double>::infinity();
        }
    }

private:
    std::vector<Index> keys_;
    std::vector<double> weights_;
};

/// The `window` last keys, and of the others those with the largest sum of weights over the last `window` queries, each
/// the mean over the `pool` keys around it in the cache (SnapKV, which cuts a cache once, after the prompt).
/// Source. arXiv:2404.14469.
class ObservationWindow {
public:
    /// Throws. `invalid_argument` unless window >= 1 and pool is odd and >= 1.
    explicit ObservationWindow(Index window = 32, Index pool = 5) : window_(window), pool_(pool) {
        detail::require(window >= 1, "ObservationWindow", "window must be >= 1", window);
        detail::require(pool >= 1 && pool % 2 == 1, "ObservationWindow", "pool must be odd and >= 1", pool);
    }
    void observe(Index, std::span<const Index> keys, std::span<const double> weights) {
        if (static_cast<Index>(seen_.size()) == window_) {
            seen_.push_back(std::move(seen_.front())); // its memory
            seen_.pop_front();
        } else {
            seen_.emplace_back();
        }
        seen_.back().keys.assign(keys.begin(), keys.end());
        seen_.back().weights.assign(weights.begin(), weights.end());
    }
    void worth(std::span<const Index> keys, std::span<double> out) {
        const std::size_t n = keys.size();
        sums_.assign(n, 0.0);
        for (const Seen& query : seen_)
            for (std::size_t at = 0, i = 0; i < n; ++i) { // both ascend
                while (at < query.keys.size() && query.keys[at] < keys[i]) ++at;
                if (at < query.keys.size() && query.keys[at] == keys[i]) sums_[i] += query.weights[at];
            }
        const std::size_t side = static_cast<std::size_t>(pool_ / 2),
                          old = n - std::min(n, static_cast<std::size_t>(window_));
        for (std::size_t i = 0; i < n; ++i) {
            if (i >= old) {
                out[i] = std::numeric_limits<double>::infinity();
                continue;
            }
            double sum = 0;
            for (std::size_t j = i - std::min(i, side); j < std::min(n, i + side + 1); ++j) sum += sums_[j];
            out[i] = sum; // of `pool` keys, those beyond the ends counted as 0
        }
    }

private:
    struct Seen {
        std::vector<Index> keys;
        std::vector<double> weights;
    };
    Index window_, pool_;
    std::deque<Seen> seen_; ///< by the last queries
    std::vector<double> sums_;
};

/// Keys that leave at random: what a policy has to beat.
class RandomEviction {
public:
    explicit RandomEviction(std::uint64_t seed) : random_(seed) {}
    void observe(Index, std::span<const Index>, std::span<const double>) {}
    void worth(std::span<const Index>, std::span<double> out) {
        for (double& x : out) x = random_.uniform();
    }

private:
    SplitMix64 random_;
};

/// How a cache is run.
struct EvictionOptions {
    Index budget = 256; ///< keys that it holds while a query looks at it, the query's own among them
    Index prompt = 0;   ///< queries that see all of their keys: the cache is cut after them
};

/// Runs a cache in the order of decoding and gives visit(query, keys) the keys that are there for each query, ascending.
/// Formula. Keys enter when the mask lets a query see them first, and leave when it hides them. Before a query from `prompt`
/// on, the keys of least worth leave until `budget` are left; the newest never does. The query's weights are the softmax of
/// scale q.k over what is there.
/// Shapes and units. The mask is causal, or else all keys enter with the first query.
/// Special rows. A query whose weights are not numbers tells the policy nothing.
/// Cost. O(queries budget (d + policy)), and O(visible d) for each query of the prompt; memory O(keys).
/// Throws. `invalid_argument` unless budget >= 1 and prompt >= 0.
template <EvictionPolicy P, HeadLike H, class Visit>
void evict_each(P& policy, const H& head, const EvictionOptions& options, const Visit& visit,
                const Mask& mask = Mask::causal()) {
    using T = detail::ScalarOfHead<H>;
    detail::require(options.budget >= 1, "evict", "budget must be >= 1", options.budget);
    detail::require(options.prompt >= 0, "evict", "prompt must be >= 0", options.prompt);
    const detail::ReadHead<T> read{StoredHead<T>(head)};
    const HeadView<T>& view = read.view();
    const double scale = static_cast<double>(view.scale());
    std::vector<Index> cache, order;
    std::vector<double> weights, worth;
    Index entered = 0; // keys below have been there
    for (Index query = 0; query < view.queries(); ++query) {
        const KeyRanges visible = mask.visible(query, view.keys());
        std::erase_if(cache, [&](Index key) { return !visible.contains(key); });
        visible.for_each([&](Index key) {
            if (key >= entered) cache.push_back(key);
        });
        if (visible.count() > 0) entered = std::max(entered, visible.hull().end);

        const Index size = static_cast<Index>(cache.size());
        if (query >= options.prompt && size > options.budget) {
            worth.resize(cache.size());
            policy.worth(cache, worth);
            for (double& x : worth)
                if (x != x) x = -std::numeric_limits<double>::infinity();
            worth.back() = std::numeric_limits<double>::infinity();
            order.resize(cache.size());
            std::iota(order.begin(), order.end(), Index(0));
            const auto leaves_first = [&](Index a, Index b) {
                const double x = detail::at(worth, a), y = detail::at(worth, b);
                return x != y ? x < y : a < b;
            };
            const auto leaving = order.begin() + (size - options.budget);
            std::nth_element(order.begin(), leaving - 1, order.end(), leaves_first);
            std::sort(order.begin(), leaving);
            std::size_t kept = 0;
            auto next = order.begin();
            for (Index i = 0; i < size; ++i) {
                if (next != leaving && *next == i)
                    ++next;
                else
                    cache[kept++] = detail::at(cache, i);
            }
            cache.resize(kept);
        }
        visit(query, std::span<const Index>(cache));
        if (cache.empty()) continue;

        weights.clear();
        const Eigen::Map<const Row<T>> q(view.q().row(query).data(), 1, view.q().cols());
        double top = -std::numeric_limits<double>::infinity(), sum = 0;
        for (const Index key : cache) {
            const Eigen::Map<const Row<T>> k(view.k().row(key).data(), 1, view.k().cols());
            weights.push_back(scale * static_cast<double>(q.matrix().dot(k.matrix())));
            top = std::max(top, weights.back());
        }
        for (double& w : weights) sum += w = std::exp(w - top);
        if (!std::isfinite(sum)) continue;
        for (double& w : weights) w /= sum;
        policy.observe(query, cache, weights);
    }
}

/// The sets of `evict_each`, all of them.
/// Cost. As there, and memory O(queries budget).
/// Example: `const auto kept = scan_selection(head, evict(HeavyHitters(128), head, {.budget = 256}), Mask::causal());`
template <EvictionPolicy P, HeadLike H>
KeySets evict(P policy, const H& head, const EvictionOptions& options, const Mask& mask = Mask::causal()) {
    KeySets sets;
    evict_each(
        policy, head, options, [&](Index, std::span<const Index> keys) { sets.add(keys); }, mask);
    return sets;
}

} // namespace v0_2
} // namespace attnscope
