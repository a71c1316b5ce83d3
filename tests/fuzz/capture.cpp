// A byte of options, and a safetensors file of heads: what is opened fits together, and its heads can be read.
#include "fuzz.hpp"

#include <attnscope/capture/load_head.hpp>
#include <attnscope/capture/open_capture.hpp>

#include <fstream>

using namespace attnscope;

namespace {

void read_heads(const Capture& capture) {
    capture.check();
    constexpr Index most = 1 << 12;
    if (capture.queries > most / capture.keys || capture.width.value_or(0) > 64) return;
    RowTally tally;
    for (Index head = 0; head < std::min<Index>(capture.heads, 3); ++head) {
        const HeadPlace place{capture.batch.value_or(capture.batches - 1), capture.layers - 1, head};
        const HeadRows rows = load_head(capture, place);
        fuzz::require(rows.logits.rows() == capture.queries && rows.logits.cols() == capture.keys,
                      "a row for each query");
        const Mask mask = rows.mask;
        for (Index query = 0; query < capture.queries; ++query) {
            const KeyRanges visible = mask.visible(query, capture.keys);
            for (Index key = 0; key < capture.keys; ++key)
                fuzz::require(visible.contains(key) ||
                                  rows.logits(query, key) == -std::numeric_limits<double>::infinity(),
                              "what the mask hides has no logit");
        }
        if (capture.kind == Capture::Kind::queries_and_keys) {
            const HeadVectors<float> vectors = load_vectors<float>(capture, place);
            fuzz::require(vectors.q.rows() == capture.queries && vectors.k.rows() == capture.keys,
                          "a vector for each query and key");
        }
        tally.merge(rows.tally);
    }
    for (const auto& lines : {findings_of(capture, tally), warnings_of(capture, tally), capture.assumptions})
        for (const std::string& line : lines) fuzz::require_message(line, "");
    const Metadata again = attention_metadata(capture.attention);
    fuzz::require(read_attention("again", again, capture.layers) == capture.attention,
                  "how layers attend is read as it is written");
}

} // namespace

void fuzz_one(std::string_view input) {
    if (input.empty()) return;
    const unsigned bits = static_cast<unsigned char>(input[0]);
    CaptureOptions options;
    if (bits & 1U) options.batch = 0;
    options.nhd = (bits & 2U) != 0;
    options.normalise_weights = (bits & 4U) != 0;
    if (bits & 8U) options.causal = true;
    if (bits & 16U) options.masked_below = -5;
    if (bits & 32U) options.scale = "0.5";
    if (bits & 64U) options.window = "2";
    const std::string path = fuzz::folder().path("fuzz.safetensors");
    std::ofstream(path, std::ios::binary) << input.substr(1);
    try {
        read_heads(open_capture({path}, options));
    } catch (const io_error& error) {
        fuzz::require_message(error.what(), path);
    } catch (const invalid_argument& error) { // of the options
        fuzz::require_message(error.what(), "");
        fuzz::require(bits != 0, "only options are refused as such");
    }
}
