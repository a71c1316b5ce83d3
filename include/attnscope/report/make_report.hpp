// The heads of a capture, analysed: by threads, in shards that leave states, or by the ranks of many machines. Needs
// attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/capture/load_head.hpp>
#include <attnscope/report/head_states.hpp>
#include <attnscope/streaming/shards.hpp>
#include <attnscope/streaming/threads.hpp>

#include <array>
#include <chrono>
#include <mutex>
#include <span>
#include <tuple>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace report_making {

[[noreturn]] inline void refuse(std::string_view rule) { detail::fail("make_report", rule); }

inline std::vector<Index> chosen(const std::vector<Index>& wanted, Index available, std::string_view what) {
    std::vector<Index> result = wanted;
    if (result.empty())
        for (Index i = 0; i < available; ++i) result.push_back(i);
    for (const Index i : result)
        if (i < 0 || i >= available)
            refuse(fmt::format("{}s: there is no {} {}; the input has {}s 0 to {}", what, what, i, what,
                               available - 1));
    // Each once: a head named twice would count twice in the audit.
    std::sort(result.begin(), result.end());
    result.erase(std::unique(result.begin(), result.end()), result.end());
    return result;
}

/// The logit of a head's sink, if it has one: another normaliser is in place of it.
inline std::optional<double> sink_of(const Report& report, const HeadPlace& place) {
    const Capture& input = report.capture;
    if (input.sinks.empty() || report.options.normalizer) return std::nullopt;
    return input.sinks[static_cast<std::size_t>(place.layer * input.heads + place.head)];
}

/// Largest |computed - stored| weight so far.
class WeightDifference {
public:
    explicit WeightDifference(const Matrix<double>& stored) : stored_(stored) {}
    void row(Index query, RowIn<double> computed) {
        double largest = 0;
        for (Index key = 0; key < stored_.cols(); ++key) {
            // Keys behind the last one that a query sees have no weight.
            const auto at = static_cast<std::size_t>(key);
            const double own = at < computed.size() ? computed[at] : 0, stored = stored_(query, key);
            const double difference = std::isnan(own) && std::isnan(stored) ? 0 : std::abs(own - stored);
            largest = larger(largest, difference);
        }
        const std::lock_guard lock(guard_);
        largest_ = larger(largest_, largest);
    }
    double largest() const { return largest_; }

private:
    /// NaN on one side only is a difference that no number describes, and stays.
    static double larger(double before, double now) {
        return now <= before || std::isnan(before) ? before : now;
    }

    const Matrix<double>& stored_;
    std::mutex guard_;
    double largest_ = 0;
};

/// The figures of a head under the normaliser that was asked for beside its own, at its temperature and without its sink.
template <class Run>
std::optional<HeadAnalysis> beside(const Report& report, const HeadPlace& place, AnalysisOptions options,
                                   const Run& run) {
    if (!report.options.beside) return std::nullopt;
    options.normalizer = make_normalizer(*report.options.beside,
                                         report.normalizers[static_cast<std::size_t>(place.layer)].temperature);
    options.sink_logit.reset();
    options.audit = options.certificates = false;
    return run(options);
}

/// Keeps what a page shows of the rows of a head, if one is asked for.
inline std::optional<PatternKeeper> keeper_of(const Report& report, const AnalysisOptions& options) {
    if (!report.options.patterns) return std::nullopt;
    const auto* const softmax = options.normalizer.target<Softmax>();
    return PatternKeeper(report.plan, report.capture.kind != Capture::Kind::weights,
                         softmax && !options.sink_logit ? std::optional(softmax->temperature()) : std::nullopt);
}

/// From the matrix of logits, as the file gives it.
inline ReportedHead analyze_rows(const Report& report, const HeadPlace& place, AnalysisOptions options,
                                 const Threads& executor) {
    ReportedHead unit;
    const HeadRows rows = load_head(report.capture, place);
    unit.tally = rows.tally;
    options.mask = rows.mask;
    options.delta = rows.delta;
    options.normalise_weights = report.capture.options.normalise_weights;
    const auto analyse = [&](auto&& from, const auto& matrix) {
        return rows.values ? from(matrix, *rows.values) : from(matrix);
    };
    const bool stored = report.capture.kind == Capture::Kind::weights;
    if (stored) options.stored_scalar = rows.stored_scalar;
    const auto run = [&](const AnalysisOptions& asked) {
        if (stored)
            return analyse(
                [&](const auto&... matrices) { return analyze_weights(matrices..., asked, executor); },
                *rows.weights);
        return analyse([&](const auto&... matrices) { return analyze_logits(matrices..., asked, executor); },
                       rows.logits);
    };
    unit.beside = beside(report, place, options, run);
    std::optional<WeightDifference> difference;
    if (rows.weights && !stored) {
        difference.emplace(*rows.weights);
    }
    std::optional<PatternKeeper> keeper = keeper_of(report, options);
    if (difference || keeper)
        options.visit = [&](Index query, RowIn<double> z, RowIn<double> p) {
            if (difference) difference->row(query, p);
            if (keeper) keeper->row(query, z, p);
        };
    unit.head = run(options);
    if (difference) unit.weight_difference = difference->largest();
    if (keeper) unit.pattern = keeper->pattern();
    return unit;
}

/// From q and k, without the matrix of logits.
inline ReportedHead analyze_vectors(const Report& report, const HeadPlace& place, AnalysisOptions options,
                                    const Threads& executor) {
    ReportedHead unit;
    const HeadVectors<double> vectors = load_vectors(report.capture, place);
    options.mask = report.capture.mask(place);
    options.scale = vectors.scale;
    const auto run = [&](const AnalysisOptions& asked) {
        return vectors.v ? analyze(vectors.q, vectors.k, *vectors.v, asked, executor)
                         : analyze(vectors.q, vectors.k, asked, executor);
    };
    unit.beside = beside(report, place, options, run);
    unit.head = run(options);
    if (std::optional<PatternKeeper> keeper = keeper_of(report, options)) {
        // A visitor would turn the scan into an analysis of every row.
        AnyNormalizer normalizer = options.normalizer;
        if (options.sink_logit.value_or(-std::numeric_limits<double>::infinity()) >
            -std::numeric_limits<double>::infinity())
            normalizer = normalizer.with_sink(*options.sink_logit);
        std::vector<double> z(static_cast<std::size_t>(vectors.k.rows())), p(z.size());
        const HeadView<double> head(vectors.q, vectors.k, {}, vectors.scale);
        for (const Index query : report.plan.shown) {
            if (report.capture.is_padding(place, query)) continue;
            logits_of<double>(head, options.mask, query, RowOut<double>(z));
            // Of rows without weights it leaves NaN or 0, which the page shows as such.
            (void)normalizer.apply<double>(RowIn<double>(z), RowOut<double>(p));
            keeper->row(query, z, p);
        }
        unit.pattern = keeper->pattern();
    }
    return unit;
}

inline ReportedHead analyze_unit(const Report& report, const HeadPlace& place, const Threads& executor) {
    const Capture& input = report.capture;
    const ReportOptions& settings = report.options;
    AnalysisOptions options = settings.analysis;
    options.normalizer = report.normalizers[static_cast<std::size_t>(place.layer)].normalizer;
    options.sink_logit = sink_of(report, place);
    options.streamed_above = report.streamed ? 0 : std::numeric_limits<Index>::max();
    options.seed = mixed_seed(settings.analysis.seed, static_cast<std::uint64_t>(place.batch),
                              static_cast<std::uint64_t>(place.layer), static_cast<std::uint64_t>(place.head));
    for (Index query = 0; query < input.queries; ++query)
        options.padding.push_back(input.is_padding(place, query));
    return report.streamed ? analyze_vectors(report, place, options, executor)
                           : analyze_rows(report, place, options, executor);
}

/// Adds a head behind those that are there.
inline void add_unit(Report& report, const HeadPlace& place, ReportedHead unit) {
    report.places.push_back(place);
    report.tally.merge(unit.tally);
    report.audit.merge(unit.head.audit);
    if (unit.weight_difference) {
        const double before = report.weight_difference.value_or(0), now = *unit.weight_difference;
        report.weight_difference = now <= before || std::isnan(before) ? before : now;
    }
    report.heads.push_back(unit.head);
    if (unit.beside) report.beside.push_back(*unit.beside);
    if (unit.pattern) report.patterns.push_back(std::move(*unit.pattern));
    if (!report.options.keep_rows) return;
    report.head_rows.push_back(std::move(unit.head));
    if (unit.beside) report.beside_rows.push_back(std::move(*unit.beside));
}

/// What a member of the options of an analysis would decide is decided elsewhere.
inline void refuse_what_the_capture_says(const Capture& capture, const AnalysisOptions& own) {
    const double pairs = static_cast<double>(capture.queries) * static_cast<double>(capture.keys);
    const std::array<std::tuple<bool, std::string_view, std::string_view>, 13> members = {{
        {visible_pairs(own.mask, capture.queries, capture.keys) < pairs, "mask", "Capture::attention"},
        {own.normalizer.name() != "softmax", "normalizer", "ReportOptions::normalizer"},
        {own.scale.has_value(), "scale", "Capture::attention"},
        {own.temperature.has_value(), "temperature", "ReportOptions::temperature"},
        {own.sink_logit.has_value(), "sink_logit", "Capture::sinks"},
        {!own.sink_logits.empty(), "sink_logits", "Capture::sinks"},
        {own.progress != nullptr, "progress", "ReportOptions::progress"},
        {own.visit != nullptr, "visit", "nothing: call analyze"},
        {!own.delta.empty(), "delta", "nothing: it is found"},
        {!own.padding.empty(), "padding", "Capture::tokens"},
        {own.masked_below.has_value(), "masked_below", "CaptureOptions::masked_below"},
        {own.normalise_weights, "normalise_weights", "CaptureOptions::normalise_weights"},
        {own.stored_scalar.has_value(), "stored_scalar", "nothing: it is found"},
    }};
    for (const auto& [given, member, instead] : members)
        if (given) refuse(fmt::format("analysis: {} is not taken from here but from {}", member, instead));
}

/// Everything of a report but what its heads say.
inline Report prepare(Capture capture, const ReportOptions& options) {
    capture.check();
    refuse_what_the_capture_says(capture, options.analysis);
    if (options.threads < 1) refuse(fmt::format("threads: must be >= 1, got {}", options.threads));
    if (options.qk_clip && !(*options.qk_clip > 0 && std::isfinite(*options.qk_clip)))
        refuse(fmt::format("qk_clip: must be > 0 and finite, got {}", *options.qk_clip));
    const auto named = [](std::string_view member, const std::string& name, double temperature) {
        try {
            return make_normalizer(name, temperature);
        } catch (const invalid_argument& error) {
            refuse(fmt::format("{}: {}", member, error.what()));
        }
    };
    if (options.temperature && !(*options.temperature > 0 && std::isfinite(*options.temperature)))
        refuse(fmt::format("temperature: must be > 0 and finite, got {}", *options.temperature));
    if (options.beside) named("beside", *options.beside, 1);
    Report report;
    report.capture = std::move(capture);
    report.options = options;
    Capture& input = report.capture;
    report.layers = chosen(options.layers, input.layers, "layer");
    (void)chosen(options.heads, input.heads, "head"); // refused before any work
    for (LayerAttention& layer : input.attention) {
        if (options.temperature) layer.temperature = options.temperature;
        if (options.normalizer) layer.normalizer = options.normalizer;
        const double temperature = layer.temperature.value_or(1);
        report.normalizers.push_back(
            {temperature, named("normalizer", layer.normalizer.value_or("softmax"), temperature)});
    }
    if (!input.sinks.empty())
        input.assumptions.push_back(
            options.normalizer
                ? "sinks: not used, another normalizer is given"
                : "sinks: a key without a value in every row, softmax beside it; the audit takes it "
                  "for one more key with value 0");
    if (std::any_of(report.layers.begin(), report.layers.end(), [&](Index layer) {
            const AnyNormalizer& any = report.normalizers[static_cast<std::size_t>(layer)].normalizer;
            return any.takes_sink() && !any.target<Softmax>();
        }))
        input.assumptions.push_back(
            "audit: of the logits that softmax sees, behind the softcap or temperature of the normaliser");
    bool can_stream = input.kind == Capture::Kind::queries_and_keys && !input.bias;
    for (const Index layer : report.layers) {
        const AnyNormalizer& normalizer = report.normalizers[static_cast<std::size_t>(layer)].normalizer;
        const auto feels_shifts = [](const AnyNormalizer& any) { return !any.promises().shift_invariant; };
        if (input.kind == Capture::Kind::weights &&
            (feels_shifts(normalizer) || (options.beside && feels_shifts(make_normalizer(*options.beside)))))
            refuse("normalizer: stored weights tell the logits of softmax up to a constant only, which this "
                   "normaliser would feel; it needs q and k, or logits");
        can_stream = can_stream && normalizer.target<Softmax>() != nullptr;
    }
    const Index most_logits = options.analysis.streamed_above;
    report.streamed =
        options.stream.value_or(can_stream && input.queries > most_logits / std::max<Index>(1, input.keys));
    if (report.streamed && !can_stream) refuse("stream: only softmax of q and k is streamed");
    return report;
}

/// What a model loses under the normaliser that was asked for beside its own, at its temperature.
inline void add_beside_loss(Report& report) {
    if (report.beside.empty() || !report.capture.loss_under) return;
    const HeadNormalizer& own = report.normalizers[static_cast<std::size_t>(report.layers.front())];
    report.beside_loss = report.capture.loss_under(make_normalizer(*report.options.beside, own.temperature));
}

/// Everything on which the results of heads depend but for their numbers.
inline std::string configuration_of(const Report& report) {
    const Capture& input = report.capture;
    const AnalysisOptions& asked = report.options.analysis;
    const auto known = [](const auto& x) { return x ? fmt::format("{}", *x) : std::string("-"); };
    std::string text =
        fmt::format("{} {} {} {} {} {} {}{}{} {} {} {} {} {}\n", static_cast<int>(input.kind), input.batches,
                    input.layers, input.heads, input.queries, input.keys, input.v.has_value(),
                    input.bias.has_value(), input.weights.has_value(), known(input.width), input.options.nhd,
                    input.options.bfloat16, known(input.options.masked_below), input.options.normalise_weights);
    for (std::size_t layer = 0; layer < input.attention.size(); ++layer) {
        const LayerAttention& own = input.attention[layer];
        text += fmt::format("{} {} {} {} {}\n", known(own.causal), known(own.scale), known(own.window),
                            report.normalizers[layer].normalizer.name(), report.normalizers[layer].temperature);
    }
    for (const double sink : input.sinks) text += fmt::format("{} ", sink);
    for (const KeyRange& range : input.tokens) text += fmt::format("[{} {}] ", range.begin, range.end);
    text += fmt::format("\n{} {} {} {} {} {} {} {} {} {}\n", known(report.options.beside),
                        report.options.normalizer.has_value(), report.streamed, asked.sensitivity, asked.audit,
                        asked.certificates, static_cast<int>(asked.reading), known(asked.radius), asked.seed,
                        asked.single_precision);
    for (const Index n : asked.counts) text += fmt::format("{} ", n);
    for (const Index query : asked.expectation_queries) text += fmt::format("q{} ", query);
    for (const double step : asked.steps) text += fmt::format("e{} ", step);
    return text;
}

/// The states of a report, which hold no patterns.
inline HeadStates states_of(const Report& report, const HeadStates& states) {
    if (report.options.patterns) refuse("patterns: states hold none");
    return states.with(configuration_of(report), report.capture.files);
}
inline std::optional<HeadStates> states_of(const Report& report, const HeadStates* states) {
    return states ? std::optional(states_of(report, *states)) : std::nullopt;
}

/// The heads of a report as units of work, in their order.
inline std::vector<WorkUnit> units_of(const Report& report) {
    const Capture& input = report.capture;
    std::vector<WorkUnit> units;
    for (const Index batch : input.chosen_batches())
        for (const Index layer : report.layers) {
            const double pairs = visible_pairs(input.mask({batch, layer, 0}), input.queries, input.keys);
            for (const Index head : chosen(report.options.heads, input.heads, "head"))
                units.push_back({batch, layer, head, pairs});
        }
    return units;
}
inline HeadPlace place_of(const WorkUnit& unit) { return {unit.document, unit.layer, unit.head}; }

/// Calls analyse(i, executor) for so many units: small heads of a layer side by side, as a model hands out one layer after
/// the other; of large heads, and of those that are too few for all threads, the rows. Then take(i) in their order.
template <class Analyse, class Take>
void side_by_side(const Report& report, std::span<const WorkUnit> units, const Analyse& analyse,
                  const Take& take) {
    constexpr Index most_logits = Index(1) << 26; // half a gigabyte of them
    const Index threads = report.options.threads,
                logits = report.streamed ? 1 : std::max<Index>(1, report.capture.queries * report.capture.keys),
                at_once = std::clamp<Index>(most_logits / logits, 1, threads);
    std::mutex guard;
    Index done = 0;
    for (std::size_t begin = 0; begin < units.size();) {
        std::size_t end = begin;
        while (end < units.size() && units[end].document == units[begin].document &&
               units[end].layer == units[begin].layer)
            ++end;
        Index count = static_cast<Index>(end - begin);
        if (count > at_once) count -= count % at_once;
        const Index together = std::min(count, at_once);
        const Threads own((threads + together - 1) / together);
        Threads{together}(count, [&](Index i) {
            analyse(begin + static_cast<std::size_t>(i), own);
            const std::lock_guard lock(guard);
            ++done;
            if (report.options.progress) report.options.progress(done, static_cast<Index>(units.size()));
        });
        for (end = begin + static_cast<std::size_t>(count); begin < end; ++begin) take(begin);
    }
}

} // namespace report_making
} // namespace detail

/// Analyses the chosen heads of a capture, on `options.threads` threads; with `states`, those alone that have none yet, which
/// get one.
/// Cost. Small heads of a layer side by side; of large heads, and of those that are too few for all threads, the rows.
/// Throws. `invalid_argument` for a layer or head that is not there, for a normaliser that stored weights cannot serve or
/// that cannot be streamed, each named as the member of `ReportOptions`, and for patterns beside states, which hold none;
/// what the analysis and `states` throw.
/// Example: `const Report report = make_report(open_capture({"heads.safetensors"}), {.threads = 4});`
inline Report make_report(Capture capture, const ReportOptions& options = {},
                          const HeadStates* states = nullptr) {
    Report report = detail::report_making::prepare(std::move(capture), options);
    const std::vector<WorkUnit> units = detail::report_making::units_of(report);
    if (options.patterns)
        report.plan = plan_patterns(
            static_cast<Index>(units.size()), report.capture.queries, report.capture.keys,
            std::all_of(report.layers.begin(), report.layers.end(),
                        [&](Index layer) { return report.capture.layer(layer).causal.value_or(false); }),
            report.streamed);
    const std::optional<HeadStates> kept = detail::report_making::states_of(report, states);
    std::vector<std::optional<ReportedHead>> done(units.size());
    detail::report_making::side_by_side(
        report, units,
        [&](std::size_t number, const Threads& executor) {
            const HeadPlace place = detail::report_making::place_of(units[number]);
            if (kept) done[number] = kept->read(place);
            if (done[number]) return;
            done[number] = detail::report_making::analyze_unit(report, place, executor);
            if (kept) kept->write(place, *done[number]);
        },
        [&](std::size_t number) {
            detail::report_making::add_unit(report, detail::report_making::place_of(units[number]),
                                            std::move(*done[number]));
            done[number].reset();
        });
    detail::report_making::add_beside_loss(report);
    return report;
}

/// As `make_report`, by many processes: run(count, work, take) calls work(i), i = 0 ... count-1, somewhere, and take with the
/// bytes of all of them, in their order; not where the report is not wanted, which then has no heads.
/// Throws. As `make_report`, and what `run` throws.
inline Report make_report_on(Capture capture, const ReportOptions& options, const HeadStates* states,
                             const UnitRunner& run) {
    Report report = detail::report_making::prepare(std::move(capture), options);
    const std::vector<WorkUnit> units = detail::report_making::units_of(report);
    if (options.patterns) detail::report_making::refuse("patterns: processes do not send them");
    const std::optional<HeadStates> kept = detail::report_making::states_of(report, states);
    const Threads executor(options.threads);
    const auto work = [&](Index number) {
        const HeadPlace place = detail::report_making::place_of(units[static_cast<std::size_t>(number)]);
        std::optional<ReportedHead> done = kept ? kept->read(place) : std::nullopt;
        if (!done) {
            done = detail::report_making::analyze_unit(report, place, executor);
            if (kept) kept->write(place, *done);
        }
        return state_of(place, *done).bytes();
    };
    run(static_cast<Index>(units.size()), work, [&](Index number, const std::vector<std::byte>& bytes) {
        io::StateReader in("the result of a rank", bytes);
        const HeadPlace place = detail::report_making::place_of(units[static_cast<std::size_t>(number)]);
        detail::report_making::add_unit(report, place, reported_head_of(in, place));
    });
    detail::report_making::add_beside_loss(report);
    return report;
}

/// The same report from states alone: nothing is analysed.
/// Throws. As `make_report`; `io_error` that names the first state that is missing.
inline Report merge_states(Capture capture, const ReportOptions& options, const HeadStates& states) {
    Report report = detail::report_making::prepare(std::move(capture), options);
    const HeadStates kept = detail::report_making::states_of(report, states);
    std::vector<std::string> missing;
    for (const WorkUnit& unit : detail::report_making::units_of(report)) {
        const HeadPlace place = detail::report_making::place_of(unit);
        std::optional<ReportedHead> done = kept.read(place);
        if (!done) {
            missing.push_back(states.name_of(place));
            continue;
        }
        if (missing.empty()) detail::report_making::add_unit(report, place, std::move(*done));
    }
    if (!missing.empty())
        throw io_error(
            states.folder(), 0,
            fmt::format("{} of the states are missing, the first is {}", missing.size(), missing.front()));
    detail::report_making::add_beside_loss(report);
    return report;
}

/// What a shard had to do.
struct ShardDone {
    Index units = 0; ///< of all shards
    Index own = 0, there = 0;
};

/// Analyses the heads of a shard that have no state yet.
/// Throws. As `make_report`.
inline ShardDone analyze_shard(Capture capture, const ReportOptions& options, const HeadStates& states,
                               const Shard& shard) {
    const Report report = detail::report_making::prepare(std::move(capture), options);
    const std::vector<WorkUnit> units = detail::report_making::units_of(report);
    const HeadStates kept = detail::report_making::states_of(report, states);
    std::vector<WorkUnit> own;
    for (const Index number : shard.units(units)) own.push_back(units[static_cast<std::size_t>(number)]);
    ShardDone done{static_cast<Index>(units.size()), static_cast<Index>(own.size()), 0};
    std::vector<char> was_there(own.size());
    detail::report_making::side_by_side(
        report, own,
        [&](std::size_t number, const Threads& executor) {
            const HeadPlace place = detail::report_making::place_of(own[number]);
            was_there[number] = kept.read(place).has_value();
            if (!was_there[number])
                kept.write(place, detail::report_making::analyze_unit(report, place, executor));
        },
        [&](std::size_t number) { done.there += was_there[number] != 0; });
    return done;
}

/// What a report will take.
struct Estimate {
    Index units = 0;
    double pairs = 0;       ///< of a query and a key that it sees
    double calibration = 0; ///< seconds of trying, on one thread
    double core_hours = 0;
};

/// What all of it will take: tries the first heads for so many seconds, or all.
/// Throws. As `make_report`.
inline Estimate estimate_report(Capture capture, const ReportOptions& options, double seconds = 10) {
    const Report report = detail::report_making::prepare(std::move(capture), options);
    const std::vector<WorkUnit> units = detail::report_making::units_of(report);
    Estimate result;
    result.units = static_cast<Index>(units.size());
    for (const WorkUnit& unit : units) result.pairs += unit.pairs;
    const Threads one(1);
    const auto start = std::chrono::steady_clock::now();
    double tried = 0;
    for (const WorkUnit& unit : units) {
        detail::report_making::analyze_unit(report, detail::report_making::place_of(unit), one);
        tried += unit.pairs;
        result.calibration = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (result.calibration > seconds) break;
    }
    result.core_hours = tried > 0 ? result.calibration * result.pairs / tried / 3600 : 0;
    return result;
}

} // namespace v0_2
} // namespace attnscope
