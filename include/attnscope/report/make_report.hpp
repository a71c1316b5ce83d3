// The heads of a capture, analysed: by threads, in shards that leave states, or by the ranks of many machines. Needs
// attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/capture/load_head.hpp>
#include <attnscope/report/head_states.hpp>
#include <attnscope/streaming/shards.hpp>
#include <attnscope/streaming/threads.hpp>

#include <chrono>
#include <mutex>
#include <span>

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

/// Everything of a report but what its heads say.
inline Report prepare(Capture capture, const ReportOptions& options) {
    capture.check();
    const AnalysisOptions& own = options.analysis;
    if (own.scale || own.temperature || own.sink_logit || !own.sink_logits.empty() || own.progress ||
        own.visit || !own.delta.empty() || !own.padding.empty() || own.masked_below || own.normalise_weights ||
        own.stored_scalar || own.normalizer.name() != "softmax" ||
        visible_pairs(own.mask, capture.queries, capture.keys) <
            static_cast<double>(capture.queries) * static_cast<double>(capture.keys))
        refuse(
            "analysis: mask, normalizer, scale, temperature, sinks, padding, delta, and what becomes of stored "
            "rows are the capture's, progress and visit the report's");
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
            {temperature, make_normalizer(layer.normalizer.value_or("softmax"), temperature)});
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
    detail::require(!states || !options.patterns, "make_report", "patterns: states hold none");
    Report report = detail::report_making::prepare(std::move(capture), options);
    const std::vector<WorkUnit> units = detail::report_making::units_of(report);
    if (options.patterns)
        report.plan = plan_patterns(
            static_cast<Index>(units.size()), report.capture.queries, report.capture.keys,
            std::all_of(report.layers.begin(), report.layers.end(),
                        [&](Index layer) { return report.capture.layer(layer).causal.value_or(false); }),
            report.streamed);
    std::vector<std::optional<ReportedHead>> done(units.size());
    detail::report_making::side_by_side(
        report, units,
        [&](std::size_t number, const Threads& executor) {
            const HeadPlace place = detail::report_making::place_of(units[number]);
            if (states) done[number] = states->read(place);
            if (done[number]) return;
            done[number] = detail::report_making::analyze_unit(report, place, executor);
            if (states) states->write(place, *done[number]);
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
    const Threads executor(options.threads);
    const auto work = [&](Index number) {
        const HeadPlace place = detail::report_making::place_of(units[static_cast<std::size_t>(number)]);
        std::optional<ReportedHead> done = states ? states->read(place) : std::nullopt;
        if (!done) {
            done = detail::report_making::analyze_unit(report, place, executor);
            if (states) states->write(place, *done);
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
    std::vector<std::string> missing;
    for (const WorkUnit& unit : detail::report_making::units_of(report)) {
        const HeadPlace place = detail::report_making::place_of(unit);
        std::optional<ReportedHead> done = states.read(place);
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
    std::vector<WorkUnit> own;
    for (const Index number : shard.units(units)) own.push_back(units[static_cast<std::size_t>(number)]);
    ShardDone done{static_cast<Index>(units.size()), static_cast<Index>(own.size()), 0};
    std::vector<char> was_there(own.size());
    detail::report_making::side_by_side(
        report, own,
        [&](std::size_t number, const Threads& executor) {
            const HeadPlace place = detail::report_making::place_of(own[number]);
            was_there[number] = states.read(place).has_value();
            if (!was_there[number])
                states.write(place, detail::report_making::analyze_unit(report, place, executor));
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
