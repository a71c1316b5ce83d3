// What policies of selection, and sets from a file, keep of the heads of a capture.
#pragma once

#include <attnscope/streaming/policy_scan.hpp>
#include <support/capture.hpp>

#include <optional>
#include <string>
#include <vector>

namespace select_keys {

using attnscope::Index;

struct Settings {
    std::vector<attnscope::SelectionPolicy> policies;
    std::string sets; ///< file of sets from an engine; empty: none
    Index prompt = 0; ///< queries that see all keys before a cache forgets; they are not counted
    bool geometry = false;
    std::uint64_t seed = 1;
    Index threads = 1; ///< the results do not depend on them
};

struct HeadSelection {
    attnscope::HeadPlace place;
    attnscope::SelectionSummary figures;
};

/// One policy with one budget on all heads.
struct PolicyResult {
    std::string name;
    std::optional<attnscope::SelectionPolicy> policy; ///< none of sets from a file
    std::vector<HeadSelection> heads;

    /// Over the heads that have rows to choose on; NaN if there are none.
    double mean(double attnscope::SelectionSummary::*figure) const;
    /// The heads with the least mass kept first.
    std::vector<const HeadSelection*> worst(std::size_t most) const;
};

struct Result {
    std::string source;
    Settings settings;
    Index batches = 0, layers = 0, heads = 0, queries = 0, keys = 0;
    std::vector<std::string> assumptions, warnings;
    std::vector<PolicyResult> policies;
};

/// Throws `usage_error` for a capture that has no q and k, whose weights are no softmax of them, or that a policy cannot
/// serve; `io_error` for sets that do not fit it.
Result measure(const attnscope::Capture& capture, const Settings& settings);

} // namespace select_keys
