// State files: what is read is what stands there, byte for byte, and nothing else is taken for a state.
#include "fuzz.hpp"

#include <attnscope/io/analysis_state.hpp>
#include <attnscope/io/streaming_state.hpp>

using namespace attnscope::io;

namespace {

template <class Read>
void read_again(std::span<const std::byte> bytes, const Read& read) {
    try {
        StateReader in("fuzz.state", bytes);
        const auto value = read(in);
        in.finish();
        StateWriter out;
        write(out, value);
        fuzz::require(std::equal(out.bytes().begin(), out.bytes().end(), bytes.begin(), bytes.end()),
                      "what is read is what stands there");
    } catch (const attnscope::io_error& error) {
        fuzz::require_message(error.what(), "fuzz.state");
    }
}

} // namespace

/// The first byte says what the others are of.
void fuzz_one(std::string_view input) {
    if (input.empty()) return;
    const std::vector<std::byte> all = attnscope_test::to_bytes(input.substr(1));
    const std::span<const std::byte> bytes(all);
    switch (input[0]) {
    case 'h':
        return read_again(bytes, [](StateReader& in) { return read_head_analysis(in); });
    case 'a':
        return read_again(bytes, [](StateReader& in) { return read_audit(in); });
    case 'f':
        return read_again(bytes, [](StateReader& in) { return read_block_scan<float, 2>(in); });
    case 'd':
        return read_again(bytes, [](StateReader& in) { return read_block_scan<double, 8>(in); });
    case 'r':
        return read_again(bytes, [](StateReader& in) { return read_row_state<float, 3>(in); });
    case 'c':
        return read_again(bytes, [](StateReader& in) { return read_column_sums(in); });
    case 'w':
        return read_again(bytes, [](StateReader& in) { return read_histogram(in); });
    default: // a whole file
        const std::string path = fuzz::folder().path("whole.state");
        write_file(path, input.substr(1));
        try {
            const StateContent state = read_state(path);
            StateWriter content;
            for (const std::byte b : state.bytes()) content.number(std::to_integer<std::uint64_t>(b), 1);
            const std::string again = fuzz::folder().path("again.state");
            write_state(again, state.label, content);
            fuzz::require(read_file(again) == read_file(path), "a whole file is written again the same");
        } catch (const attnscope::io_error& error) {
            fuzz::require_message(error.what(), path);
        }
    }
}
