// Selectors by name, with a budget: what programs and tables compare.
#pragma once

#include <attnscope/selector/block_reading.hpp>
#include <attnscope/selector/eviction.hpp>
#include <attnscope/selector/row_selectors.hpp>

#include <charconv>
#include <string>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {

/// A selector with its budget of keys a query.
struct SelectionPolicy {
    enum class Kind {
        top,       ///< the best keys, which nobody knows before reading all
        window,    ///< sinks and the last keys (StreamingLLM)
        h2o,       ///< the last keys and those of the largest weights so far
        snapkv,    ///< the last keys and those that the last queries looked at, pooled
        tova,      ///< those that the last query looked at
        quest,     ///< blocks of keys by the limit of their logits
        certified, ///< blocks of keys until a share of the mass is certain
        ranged,    ///< the same from the least and largest keys of blocks alone
        hindsight, ///< the fewest blocks that hold a share of the mass, which nobody knows before reading all
        random
    };
    static constexpr std::array<std::string_view, 10> names = {
        "top", "window", "h2o", "snapkv", "tova", "quest", "certified", "ranged", "hindsight", "random"};

    Kind kind = Kind::top;
    Index budget = 256; ///< keys of each set; 0: as many as `mass` needs
    Index parameter =
        0; ///< window: sinks; h2o: last keys; snapkv: queries that are observed; of policies of blocks: their size
    double mass = 0; ///< of certified, ranged and hindsight: the share

    /// As `selection_policies` reads it.
    std::string name() const {
        std::string text(names[static_cast<std::size_t>(kind)]);
        if (has_mass()) {
            std::array<char, 32> digits{};
            const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), mass).ptr;
            text += ":" + std::string(digits.data(), end);
        } else {
            text += ":" + std::to_string(kind == Kind::window ? budget - parameter : budget);
        }
        if (has_parameter()) text += ":" + std::to_string(parameter);
        return text;
    }
    bool has_parameter() const { return kind != Kind::top && kind != Kind::tova && kind != Kind::random; }
    /// Does it read until a share of the mass is there, whatever that takes?
    bool has_mass() const { return kind == Kind::certified || kind == Kind::ranged || kind == Kind::hindsight; }
    /// Does it look at blocks, whose share is told?
    bool reads_blocks() const { return kind == Kind::quest || has_mass(); }
    /// Is it a cache that forgets, in the order of decoding?
    bool evicts() const { return kind == Kind::h2o || kind == Kind::snapkv || kind == Kind::tova; }
};

namespace detail {

template <class Number>
Number policy_number(std::string_view policy, std::string_view text, Number least, Number most) {
    Number number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || !(number >= least && number <= most)) {
        const std::string rule = "\"" + std::string(policy) + "\": expected a number from " +
                                 std::to_string(least) + " to " + std::to_string(most);
        fail("selection_policies", rule, std::string(text));
    }
    return number;
}

/// One policy as it was written, with a budget for those that have none.
inline SelectionPolicy policy_of(std::string_view text, std::optional<Index> budget) {
    using Kind = SelectionPolicy::Kind;
    constexpr Index most = Index(1) << 40;
    std::vector<std::string_view> parts;
    for (std::string_view rest = text;;) {
        const std::size_t colon = rest.find(':');
        parts.push_back(rest.substr(0, colon));
        if (colon == rest.npos) break;
        rest.remove_prefix(colon + 1);
    }
    const auto& names = SelectionPolicy::names;
    const auto found = std::find(names.begin(), names.end(), parts.front());
    if (found == names.end())
        fail("selection_policies",
             "a policy must be top, window, h2o, snapkv, tova, quest, certified, ranged, hindsight or "
             "random",
             std::string(text));
    SelectionPolicy policy;
    policy.kind = static_cast<Kind>(found - names.begin());
    const std::size_t most_parts = policy.has_parameter() ? 3 : 2;
    require(parts.size() <= most_parts, "selection_policies",
            "a policy must have no more numbers than it knows", std::string(text));
    if (policy.has_mass()) {
        policy.budget = 0;
        policy.mass = parts.size() > 1 ? policy_number<double>(text, parts[1], 0, 1) : 0.99;
    } else if (parts.size() > 1) {
        policy.budget = policy_number<Index>(text, parts[1], 1, most);
    } else {
        policy.budget = *budget;
    }
    Index usual = 16;
    if (policy.kind == Kind::window) usual = std::min<Index>(4, policy.budget - 1);
    if (policy.kind == Kind::h2o) usual = std::max<Index>(1, policy.budget / 2);
    if (policy.kind == Kind::snapkv) usual = std::clamp<Index>(policy.budget / 2, 1, 32);
    if (policy.has_parameter())
        policy.parameter = parts.size() > 2
                               ? policy_number<Index>(text, parts[2], policy.kind == Kind::window ? 0 : 1, most)
                               : usual;
    if (policy.kind == Kind::window && parts.size() > 2) policy.budget += policy.parameter; // beside the window
    return policy;
}

} // namespace detail

/// Policies of a list NAME[:BUDGET[:PARAMETER]],...: "quest:64:16,h2o:256,window:252:4,top". One without a budget comes once
/// with each of `budgets`. window:W:S is the last W keys and S sinks, window:B or with one of the budgets B keys of which 4
/// are sinks; certified[:MASS[:BLOCK]] and ranged read blocks until that share of the mass (0.99) is certain, hindsight those that hold
/// it.
/// Throws. `invalid_argument` that names the policy, for names and numbers that are none, and a policy without any budget.
inline std::vector<SelectionPolicy> selection_policies(std::string_view text, std::span<const Index> budgets) {
    std::vector<SelectionPolicy> policies;
    for (std::string_view rest = text;;) {
        const std::size_t comma = rest.find(',');
        const std::string_view one = rest.substr(0, comma);
        if (one.find(':') != one.npos || one == "certified" || one == "ranged" || one == "hindsight") {
            policies.push_back(detail::policy_of(one, {}));
        } else {
            detail::policy_of(one, Index(1)); // its name first
            detail::require(!budgets.empty(), "selection_policies", "a policy needs a budget",
                            std::string(one));
            for (const Index budget : budgets) {
                detail::require(budget >= 1, "selection_policies", "a budget must be >= 1", budget);
                policies.push_back(detail::policy_of(one, budget));
            }
        }
        if (comma == rest.npos) break;
        rest.remove_prefix(comma + 1);
    }
    return policies;
}

/// The sets of a policy, and what it is certain of, for each query; NaN where it is of nothing.
struct PolicySets {
    KeySets sets;
    std::vector<double> certified_kept,
        certified_output;            ///< of policies that know limits of blocks; else empty
    std::vector<double> blocks_read; ///< share of those that hold a visible key; of blocks
};

namespace detail {

/// The visible keys of the fewest blocks that hold a share of the softmax mass of a row, and the share of blocks.
struct FewestBlocks {
    std::vector<Index> keys;
    double share = 0;
};
template <Real T>
FewestBlocks fewest_blocks(RowIn<T> z, Index size, double mass) {
    using A = Accumulator<T>;
    FewestBlocks result;
    const A top = A(row_max<T>(z));
    if (!std::isfinite(top)) return result;
    std::vector<std::pair<A, Index>> blocks; // of those with a visible key
    A all = 0;
    constexpr T hidden = -std::numeric_limits<T>::infinity();
    for (Index first = 0; first < detail::size<T>(z); first += size) {
        A own = 0;
        bool seen = false;
        for (Index key = first; key < std::min(first + size, detail::size<T>(z)); ++key) {
            own += std::exp(A(at(z, key)) - top);
            seen = seen || at(z, key) != hidden;
        }
        if (seen) blocks.emplace_back(own, first);
        all += own;
    }
    std::stable_sort(blocks.begin(), blocks.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    A kept = 0;
    Index read = 0;
    for (const auto& [own, first] : blocks) {
        if (read > 0 && kept >= static_cast<A>(mass) * all) break;
        kept += own;
        ++read;
        for (Index key = first; key < std::min(first + size, detail::size<T>(z)); ++key)
            if (at(z, key) != hidden) result.keys.push_back(key);
    }
    result.share = static_cast<double>(read) / static_cast<double>(blocks.size());
    return result;
}

} // namespace detail

/// What a policy selects for every query of a head.
/// Formula. Policies of blocks look at each query by itself, those that evict run a cache in the order of decoding, after
/// a prompt of so many queries (`evict`); top looks at all logits.
/// Cost. That of the selectors; memory O(queries budget).
/// Throws. `invalid_argument` as they do.
template <HeadLike H, Real T = detail::ScalarOfHead<H>>
PolicySets select_by(const SelectionPolicy& policy, const H& head, const Mask& mask = Mask::causal(),
                     Index prompt = 0, std::uint64_t seed = 1) {
    using Kind = SelectionPolicy::Kind;
    const detail::ReadHead<T> read{StoredHead<T>(head)};
    const HeadView<T>& view = read.view();
    const EvictionOptions cache{.budget = std::max<Index>(1, policy.budget), .prompt = prompt};
    PolicySets result;
    const auto of_rows = [&](const auto& selector) {
        for (Index query = 0; query < view.queries(); ++query) result.sets.add(selector(query));
    };
    switch (policy.kind) {
    case Kind::top: {
        std::vector<T> z(static_cast<std::size_t>(view.keys()));
        const TopKeys top(policy.budget);
        of_rows([&](Index query) {
            logits_of<T>(view, mask, query, RowOut<T>(z));
            return top(ScoredRow<T>{query, 0, RowIn<T>(z)});
        });
        break;
    }
    case Kind::window:
        of_rows(SinkWindow(policy.parameter, policy.budget - policy.parameter, mask, view.keys()));
        break;
    case Kind::random:
        of_rows(RandomKeys(policy.budget, seed, mask, view.keys()));
        break;
    case Kind::h2o:
        result.sets = evict(HeavyHitters(policy.parameter), view, cache, mask);
        break;
    case Kind::snapkv:
        result.sets = evict(ObservationWindow(policy.parameter), view, cache, mask);
        break;
    case Kind::tova:
        result.sets = evict(LastQuery(), view, cache, mask);
        break;
    case Kind::hindsight: {
        std::vector<T> z(static_cast<std::size_t>(view.keys()));
        for (Index query = 0; query < view.queries(); ++query) {
            logits_of<T>(view, mask, query, RowOut<T>(z));
            const auto blocks = detail::fewest_blocks<T>(RowIn<T>(z), policy.parameter, policy.mass);
            result.sets.add(blocks.keys);
            result.blocks_read.push_back(blocks.share);
        }
        break;
    }
    case Kind::quest:
    case Kind::certified:
    case Kind::ranged: {
        const KeyBlocks<T> blocks(view.k(), policy.parameter, view.has_values() ? view.v() : MatrixView<T>(),
                                  policy.kind == Kind::ranged ? BlockSummary::range : BlockSummary::moments);
        const BlockReader<T> reader(view, blocks, mask);
        for (Index query = 0; query < view.queries(); ++query) {
            const auto reading = policy.kind == Kind::quest ? reader.best(query, policy.budget)
                                                            : reader.until(query, policy.mass);
            result.sets.add(reading.keys);
            result.certified_kept.push_back(static_cast<double>(reading.kept));
            result.certified_output.push_back(static_cast<double>(reading.output));
            result.blocks_read.push_back(static_cast<double>(reading.blocks.size()) /
                                         static_cast<double>(std::max<Index>(1, reading.visible_blocks)));
        }
        break;
    }
    }
    return result;
}

} // namespace v0_2
} // namespace attnscope
