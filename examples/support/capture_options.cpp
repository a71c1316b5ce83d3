#include <support/capture.hpp>
#include <support/program.hpp>

#include <memory>

namespace program {

std::function<attnscope::CaptureOptions()> add_capture_options(CLI::App& app, bool with_rows) {
    struct Texts {
        std::string batch, layout = "hnd", scale, window, masked_below;
        bool causal = false, no_causal = false, normalise = false, bfloat16 = false;
    };
    const auto texts = std::make_shared<Texts>();
    const auto* batch = app.add_option("--batch", texts->batch,
                                       "this one of an input with batches, [batch,layers,heads,n,d] or "
                                       "[batch,heads,n,d] [all, and no batch in four dimensions]");
    app.add_option("--layout", texts->layout, "of q, k and v: hnd, or nhd for [tokens,heads,d]")
        ->capture_default_str();
    app.add_flag("--bfloat16", texts->bfloat16, "raw numbers of two bytes (V2) in .npy and .npz are bfloat16");
    const auto* scale =
        app.add_option("--scale", texts->scale,
                       "factor of q.k, one or for each layer a,b,... [as the file says, else 1/sqrt(d)]");
    const auto* window =
        app.add_option("--window", texts->window,
                       "keys up to the query's own that it sees, one or for each layer, 0: all "
                       "[as the file says, else 0]");
    auto* causal = app.add_flag("--causal", texts->causal,
                                "query i sees the keys up to its own, aligned bottom-right "
                                "[as the file's metadata say, else no]");
    app.add_flag("--no-causal", texts->no_causal, "every query sees every key")->excludes(causal);
    const CLI::Option* below = nullptr;
    if (with_rows) {
        below = app.add_option("--masked-below", texts->masked_below,
                               "logits and biases at or below this are masks [half of the lowest number of the "
                               "stored type, -30000 for float16]");
        app.add_flag("--normalise-weights", texts->normalise,
                     "divide stored weights by the sum of their row, keys that the mask hides left out");
    }
    return [=] {
        attnscope::CaptureOptions options;
        if (batch->count() > 0)
            options.batch = whole_number<attnscope::Index>("--batch", texts->batch, 0,
                                                           std::numeric_limits<attnscope::Index>::max());
        if (texts->layout != "hnd" && texts->layout != "nhd")
            throw usage_error(fmt::format("--layout must be hnd or nhd, got {}", texts->layout));
        options.nhd = texts->layout == "nhd";
        options.bfloat16 = texts->bfloat16;
        if (scale->count() > 0) options.scale = texts->scale;
        if (window->count() > 0) options.window = texts->window;
        if (texts->causal || texts->no_causal) options.causal = texts->causal;
        if (below && below->count() > 0) {
            const std::string& text = texts->masked_below;
            double value = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            if (error != std::errc{} || end != text.data() + text.size() || std::isnan(value))
                throw usage_error(fmt::format("--masked-below must be a number such as -5000, got {}", text));
            options.masked_below = value;
        }
        options.normalise_weights = texts->normalise;
        return options;
    };
}

attnscope::Capture open_capture(const std::vector<std::string>& inputs, std::uint64_t seed,
                                const attnscope::CaptureOptions& options) {
    if (inputs.empty() && (options.batch || options.nhd))
        throw usage_error("--batch, --layout: there is no input");
    return as_options([&] {
        if (!inputs.empty()) return attnscope::open_capture(inputs, options);
        attnscope::Capture capture = synthetic_capture(seed);
        attnscope::apply_options(capture, options);
        return capture;
    });
}

} // namespace program
