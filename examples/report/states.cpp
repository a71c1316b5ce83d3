#include "states.hpp"

#include <support/program.hpp>

#include <filesystem>

namespace report {
namespace {

using attnscope::io::StateReader;
using attnscope::io::StateWriter;
using program::RowTally;

/// The counts of a tally, in the order of the file.
template <class Tally, class Visit>
void for_each_count(Tally& tally, const Visit& visit) {
    for (auto* count : {&tally.masks, &tally.unmasked_rows, &tally.rows, &tally.wide_rows, &tally.heads,
                        &tally.masked_causally, &tally.not_one, &tally.rounded, &tally.negative,
                        &tally.negative_rows, &tally.hidden_rows})
        visit(*count);
}

void write(StateWriter& out, const RowTally& tally) {
    for_each_count(tally, [&](const program::Index& count) { out.index(count); });
    for (const double x : {tally.least_mask, tally.most_mask, tally.most_hidden}) out.real(x);
    out.text(tally.rounded_type);
    out.reals(tally.sums);
}

RowTally read_tally(StateReader& in) {
    RowTally tally;
    for_each_count(tally, [&](program::Index& count) { count = in.count(); });
    for (double* x : {&tally.least_mask, &tally.most_mask, &tally.most_hidden}) *x = in.real();
    const std::string type = in.text();
    for (int i = 0; i < 4; ++i)
        if (const auto name = name_of(static_cast<attnscope::StoredScalar>(i)); type == name)
            tally.rounded_type = name;
    if (tally.rounded_type != type) in.fail("unknown type " + type);
    tally.sums = in.reals();
    return tally;
}

} // namespace

StateWriter state_of(const program::HeadPlace& place, const UnitResult& unit) {
    StateWriter out;
    for (const program::Index number : {place.batch, place.layer, place.head}) out.index(number);
    attnscope::io::write(out, unit.head);
    out.flag(unit.beside.has_value());
    if (unit.beside) attnscope::io::write(out, *unit.beside);
    report::write(out, unit.tally);
    out.optional_real(unit.weight_difference);
    return out;
}

UnitResult unit_of(StateReader& in, const program::HeadPlace& place) {
    UnitResult unit;
    const program::HeadPlace stored{in.count(), in.count(), in.count()};
    if (stored.batch != place.batch || stored.layer != place.layer || stored.head != place.head)
        in.fail(fmt::format("this is batch {}, layer {}, head {}", stored.batch, stored.layer, stored.head));
    unit.head = attnscope::io::read_head_analysis(in);
    if (in.flag()) unit.beside = attnscope::io::read_head_analysis(in);
    unit.tally = read_tally(in);
    unit.weight_difference = in.optional_real();
    in.finish();
    return unit;
}

UnitStates::UnitStates(std::string folder, std::string_view configuration,
                       const std::vector<std::string>& inputs)
    : folder_(std::move(folder)) {
    attnscope::io::Hash64 hash, bytes;
    hash.add(attnscope::version);
    hash.add(configuration);
    for (const std::string& input : inputs) {
        const auto equals = input.find('=');
        const std::string name = equals == input.npos ? "" : input.substr(0, equals);
        const auto file = attnscope::io::File::open(equals == input.npos ? input : input.substr(equals + 1));
        bytes.add(fmt::format("{} {};", name, file.size()));
        std::vector<std::byte> part(std::size_t(1) << 20);
        for (std::uint64_t at = 0; at < file.size();) {
            const std::size_t got = file.read_some(at, part);
            if (got == 0) break;
            bytes.add(std::span(part).first(got));
            at += got;
        }
    }
    label_ = {kind, hash.value(), bytes.value()};
}

std::string UnitStates::name_of(const program::HeadPlace& place) const {
    return (std::filesystem::path(folder_) /
            fmt::format("b{}-l{}-h{}.state", place.batch, place.layer, place.head))
        .string();
}

std::optional<UnitResult> UnitStates::read(const program::HeadPlace& place) const {
    const std::string name = name_of(place);
    if (!std::filesystem::exists(name)) return std::nullopt;
    try {
        const attnscope::io::StateContent state = attnscope::io::read_state(name);
        if (state.label.kind != kind) throw attnscope::io_error(name, 12, "this is a state of something else");
        if (state.label != label_)
            throw std::runtime_error(
                fmt::format("{}: is of another {}: name another folder, or remove it", name,
                            state.label.input != label_.input ? "input" : "version or other options"));
        StateReader in = state.reader(name);
        return unit_of(in, place);
    } catch (const attnscope::io_error& error) {
        program::warn("attnscope-report", fmt::format("not used: {}", error.what()));
        return std::nullopt;
    }
}

void UnitStates::write(const program::HeadPlace& place, const UnitResult& unit) const {
    attnscope::io::write_state(name_of(place), label_, state_of(place, unit));
}

} // namespace report
