// Heads of a report that are done, one state file each, for work that many processes share or that is taken up again.
#pragma once

#include "pattern.hpp"

#include <attnscope/io/analysis_state.hpp>
#include <support/capture.hpp>

namespace report {

/// What one head adds to a report.
struct UnitResult {
    attnscope::HeadAnalysis head;
    std::optional<attnscope::HeadAnalysis> beside; ///< under `Settings::beside`
    program::RowTally tally;
    std::optional<double> weight_difference;
    std::optional<HeadPattern> pattern; ///< for a page; not in states
};

/// A unit as bytes, and back.
/// Throws. `io_error` that names `file`, for a unit of another place and bytes that are none.
attnscope::io::StateWriter state_of(const program::HeadPlace& place, const UnitResult& unit);
UnitResult unit_of(attnscope::io::StateReader& in, const program::HeadPlace& place);

/// The states of a folder, of one configuration and input. docs/states.md describes the files.
class UnitStates {
public:
    static constexpr std::uint32_t kind = 1;

    /// configuration: everything that a result depends on, as text. inputs: files whose bytes it depends on.
    UnitStates(std::string folder, std::string_view configuration, const std::vector<std::string>& inputs);

    const std::string& folder() const { return folder_; }
    /// The file of a head.
    std::string name_of(const program::HeadPlace& place) const;
    /// What is there of a head. A file that is damaged is named on standard error, and not used. Throws `std::runtime_error`
    /// for a file of another configuration or input, which stays as it is.
    std::optional<UnitResult> read(const program::HeadPlace& place) const;
    /// Written beside and renamed. Throws `io_error`.
    void write(const program::HeadPlace& place, const UnitResult& unit) const;

private:
    std::string folder_;
    attnscope::io::StateLabel label_;
};

} // namespace report
