// Heads of a report that are done, one state file each, for work that many processes share or that is taken up again.
// Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/io/analysis_state.hpp>
#include <attnscope/report/report.hpp>

#include <filesystem>

namespace attnscope {
inline namespace v0_2 {

/// What one head adds to a report.
struct ReportedHead {
    HeadAnalysis head;
    std::optional<HeadAnalysis> beside; ///< under `ReportOptions::beside`
    RowTally tally;
    std::optional<double> weight_difference;
    std::optional<HeadPattern> pattern; ///< for a page; not in states
};

namespace detail {
namespace head_states {

/// The counts of a tally, in the order of the file.
template <class Tally, class Visit>
void for_each_count(Tally& tally, const Visit& visit) {
    for (auto* count : {&tally.masks, &tally.unmasked_rows, &tally.rows, &tally.wide_rows, &tally.heads,
                        &tally.masked_causally, &tally.not_one, &tally.rounded, &tally.negative,
                        &tally.negative_rows, &tally.hidden_rows})
        visit(*count);
}

inline void write_tally(io::StateWriter& out, const RowTally& tally) {
    for_each_count(tally, [&](const Index& count) { out.index(count); });
    for (const double x : {tally.least_mask, tally.most_mask, tally.most_hidden}) out.real(x);
    out.text(tally.rounded_type);
    out.reals(tally.sums);
}

inline RowTally read_tally(io::StateReader& in) {
    RowTally tally;
    for_each_count(tally, [&](Index& count) { count = in.count(); });
    for (double* x : {&tally.least_mask, &tally.most_mask, &tally.most_hidden}) *x = in.real();
    const std::string type = in.text();
    for (int i = 0; i < 4; ++i)
        if (const auto name = name_of(static_cast<StoredScalar>(i)); type == name) tally.rounded_type = name;
    if (tally.rounded_type != type) in.fail("unknown type " + type);
    tally.sums = in.reals();
    return tally;
}

} // namespace head_states
} // namespace detail

/// A head as bytes; its pattern is left out.
inline io::StateWriter state_of(const HeadPlace& place, const ReportedHead& unit) {
    io::StateWriter out;
    for (const Index number : {place.batch, place.layer, place.head}) out.index(number);
    io::write(out, unit.head);
    out.flag(unit.beside.has_value());
    if (unit.beside) io::write(out, *unit.beside);
    detail::head_states::write_tally(out, unit.tally);
    out.optional_real(unit.weight_difference);
    return out;
}

/// The head that these bytes hold.
/// Throws. `io_error` for one of another place and for bytes that are none.
inline ReportedHead reported_head_of(io::StateReader& in, const HeadPlace& place) {
    ReportedHead unit;
    const HeadPlace stored{in.count(), in.count(), in.count()};
    if (stored.batch != place.batch || stored.layer != place.layer || stored.head != place.head)
        in.fail(fmt::format("this is batch {}, layer {}, head {}", stored.batch, stored.layer, stored.head));
    unit.head = io::read_head_analysis(in);
    if (in.flag()) unit.beside = io::read_head_analysis(in);
    unit.tally = detail::head_states::read_tally(in);
    unit.weight_difference = in.optional_real();
    in.finish();
    return unit;
}

/// The states of a folder, of one configuration and input. docs/states.md describes the files.
/// Example: `const HeadStates states("states");`
class HeadStates {
public:
    static constexpr std::uint32_t kind = 1;

    /// configuration: what the results depend on beside what is asked of a report and what its capture says: of heads in
    /// memory, the name and version of what made them. damaged: told of a file that is damaged, which is then as good as
    /// absent; without it that is an error.
    /// Throws. `io_error` for a folder that is not there.
    explicit HeadStates(std::string folder, std::string configuration = {},
                        std::function<void(const io_error&)> damaged = {})
        : folder_(std::move(folder)), configuration_(std::move(configuration)), damaged_(std::move(damaged)) {
        if (!std::filesystem::is_directory(folder_)) throw io_error(folder_, 0, "there is no such folder");
        label_ = {kind, hash_of(configuration_), io::Hash64().value()};
    }

    /// The same folder, for results that depend on this text too, and on the bytes of these files (`Capture::files`).
    /// Throws. `io_error` for a file that cannot be read.
    HeadStates with(std::string_view configuration, const std::vector<std::string>& files) const {
        HeadStates states = *this;
        states.configuration_ += fmt::format("\n{}:{}", configuration.size(), configuration);
        states.label_ = {kind, hash_of(states.configuration_), hash_of_files(files)};
        return states;
    }

    const std::string& folder() const { return folder_; }
    /// The file of a head.
    std::string name_of(const HeadPlace& place) const {
        return (std::filesystem::path(folder_) /
                fmt::format("b{}-l{}-h{}.state", place.batch, place.layer, place.head))
            .string();
    }

    /// What is there of a head.
    /// Throws. `io_error` for a file of another configuration or input, which stays as it is, and for a damaged one that
    /// nobody wants to be told of.
    std::optional<ReportedHead> read(const HeadPlace& place) const {
        const std::string name = name_of(place);
        if (!std::filesystem::exists(name)) return std::nullopt;
        std::optional<io::StateContent> state;
        try {
            state = io::read_state(name);
            if (state->label.kind != kind) throw io_error(name, 12, "this is a state of something else");
            if (state->label == label_) {
                io::StateReader in = state->reader(name);
                return reported_head_of(in, place);
            }
        } catch (const io_error& error) {
            if (!damaged_) throw;
            damaged_(error);
            return std::nullopt;
        }
        throw io_error(name, 12,
                       fmt::format("is of another {}: name another folder, or remove it",
                                   state->label.input != label_.input ? "input" : "version or other options"));
    }
    /// Written beside and renamed.
    /// Throws. `io_error`.
    void write(const HeadPlace& place, const ReportedHead& head) const {
        io::write_state(name_of(place), label_, state_of(place, head));
    }

private:
    static std::uint64_t hash_of(std::string_view configuration) {
        io::Hash64 hash;
        hash.add(version);
        hash.add(configuration);
        return hash.value();
    }
    static std::uint64_t hash_of_files(const std::vector<std::string>& files) {
        io::Hash64 bytes;
        for (const std::string& input : files) {
            const auto equals = std::filesystem::exists(input) ? input.npos : input.find('=');
            const std::string name = equals == input.npos ? "" : input.substr(0, equals);
            const auto file = io::File::open(equals == input.npos ? input : input.substr(equals + 1));
            bytes.add(fmt::format("{} {};", name, file.size()));
            std::vector<std::byte> part(std::size_t(1) << 20);
            for (std::uint64_t at = 0; at < file.size();) {
                const std::size_t got = file.read_some(at, part);
                if (got == 0) break;
                bytes.add(std::span(part).first(got));
                at += got;
            }
        }
        return bytes.value();
    }

    std::string folder_, configuration_;
    std::function<void(const io_error&)> damaged_;
    io::StateLabel label_;
};

} // namespace v0_2
} // namespace attnscope
