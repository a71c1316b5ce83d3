#include "analysis.hpp"

#include <attnscope/streaming/threads.hpp>
#include <support/named_normalizer.hpp>
#include <support/program.hpp>

#include <mutex>
#include <span>

namespace report {
namespace {

using attnscope::RowIn;

std::vector<Index> chosen(const std::vector<Index>& wanted, Index available, std::string_view what) {
    std::vector<Index> result = wanted;
    if (result.empty())
        for (Index i = 0; i < available; ++i) result.push_back(i);
    for (const Index i : result)
        if (i < 0 || i >= available)
            throw program::usage_error(fmt::format("--{}s: there is no {} {}; the input has {}s 0 to {}", what,
                                                   what, i, what, available - 1));
    // Each once: a head named twice would count twice in the audit.
    std::sort(result.begin(), result.end());
    result.erase(std::unique(result.begin(), result.end()), result.end());
    return result;
}

/// The logit of a head's sink, if it has one: `--normalizer` is in place of it.
std::optional<double> sink_of(const Report& report, const HeadPlace& place) {
    const Capture& input = report.capture;
    if (input.sinks.empty() || report.settings.normalizer) return std::nullopt;
    return input.sinks[static_cast<std::size_t>(place.layer * input.heads + place.head)];
}

/// Largest |computed - stored| weight so far.
class WeightDifference {
public:
    explicit WeightDifference(const attnscope::Matrix<double>& stored) : stored_(stored) {}
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

    const attnscope::Matrix<double>& stored_;
    std::mutex guard_;
    double largest_ = 0;
};

/// The figures of a head under the normaliser that was asked for beside its own, at its temperature and without its sink.
template <class Run>
std::optional<HeadAnalysis> beside(const Report& report, const HeadPlace& place,
                                   attnscope::AnalysisOptions options, const Run& run) {
    if (!report.settings.beside) return std::nullopt;
    options.normalizer = program::named_normalizer(
        *report.settings.beside, report.normalizers[static_cast<std::size_t>(place.layer)].temperature);
    options.sink_logit.reset();
    options.audit = options.certificates = false;
    return run(options);
}

/// Keeps what a page shows of the rows of a head, if one is asked for.
std::optional<PatternKeeper> keeper_of(const Report& report, const attnscope::AnalysisOptions& options) {
    if (!report.settings.patterns) return std::nullopt;
    const auto* const softmax = options.normalizer.target<attnscope::Softmax>();
    return PatternKeeper(report.plan, report.capture.kind != Capture::Kind::weights,
                         softmax && !options.sink_logit ? std::optional(softmax->temperature()) : std::nullopt);
}

/// From the matrix of logits, as the file gives it.
UnitResult analyse_rows(const Report& report, const HeadPlace& place, attnscope::AnalysisOptions options,
                        const attnscope::Threads& executor) {
    UnitResult unit;
    const program::HeadRows rows = load_head(report.capture, place);
    unit.tally = rows.tally;
    options.mask = rows.mask;
    options.delta = rows.delta;
    options.normalise_weights = report.capture.options.normalise_weights;
    const auto analyse = [&](auto&& from, const auto& matrix) {
        return rows.values ? from(matrix, *rows.values) : from(matrix);
    };
    const bool stored = report.capture.kind == Capture::Kind::weights;
    if (stored) options.stored_scalar = rows.stored_scalar;
    const auto run = [&](const attnscope::AnalysisOptions& asked) {
        if (stored)
            return analyse(
                [&](const auto&... matrices) {
                    return attnscope::analyze_weights(matrices..., asked, executor);
                },
                *rows.weights);
        return analyse(
            [&](const auto&... matrices) { return attnscope::analyze_logits(matrices..., asked, executor); },
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
UnitResult analyse_vectors(const Report& report, const HeadPlace& place, attnscope::AnalysisOptions options,
                           const attnscope::Threads& executor) {
    UnitResult unit;
    const program::HeadVectors<double> vectors = program::load_vectors(report.capture, place);
    options.mask = report.capture.mask(place);
    options.scale = vectors.scale;
    const auto run = [&](const attnscope::AnalysisOptions& asked) {
        return vectors.v ? attnscope::analyze(vectors.q, vectors.k, *vectors.v, asked, executor)
                         : attnscope::analyze(vectors.q, vectors.k, asked, executor);
    };
    unit.beside = beside(report, place, options, run);
    unit.head = run(options);
    if (std::optional<PatternKeeper> keeper = keeper_of(report, options)) {
        // A visitor would turn the scan into an analysis of every row.
        attnscope::AnyNormalizer normalizer = options.normalizer;
        if (options.sink_logit.value_or(-std::numeric_limits<double>::infinity()) >
            -std::numeric_limits<double>::infinity())
            normalizer = normalizer.with_sink(*options.sink_logit);
        std::vector<double> z(static_cast<std::size_t>(vectors.k.rows())), p(z.size());
        const attnscope::HeadView<double> head(vectors.q, vectors.k, {}, vectors.scale);
        for (const Index query : report.plan.shown) {
            if (report.capture.is_padding(place, query)) continue;
            attnscope::logits_of<double>(head, options.mask, query, attnscope::RowOut<double>(z));
            // Of rows without weights it leaves NaN or 0, which the page shows as such.
            (void)normalizer.apply<double>(RowIn<double>(z), attnscope::RowOut<double>(p));
            keeper->row(query, z, p);
        }
        unit.pattern = keeper->pattern();
    }
    return unit;
}

UnitResult analyse_unit(const Report& report, const HeadPlace& place, const attnscope::Threads& executor) {
    const Capture& input = report.capture;
    const Settings& settings = report.settings;
    attnscope::AnalysisOptions options = settings.analysis;
    options.normalizer = report.normalizers[static_cast<std::size_t>(place.layer)].normalizer;
    options.sink_logit = sink_of(report, place);
    options.streamed_above = report.streamed ? 0 : std::numeric_limits<Index>::max();
    options.seed =
        attnscope::mixed_seed(settings.analysis.seed, static_cast<std::uint64_t>(place.batch),
                              static_cast<std::uint64_t>(place.layer), static_cast<std::uint64_t>(place.head));
    for (Index query = 0; query < input.queries; ++query)
        options.padding.push_back(input.is_padding(place, query));
    return report.streamed ? analyse_vectors(report, place, options, executor)
                           : analyse_rows(report, place, options, executor);
}

/// Adds a head behind those that are there.
void add_unit(Report& report, const HeadPlace& place, UnitResult unit) {
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
    if (!report.settings.keep_rows) return;
    report.head_rows.push_back(std::move(unit.head));
    if (unit.beside) report.beside_rows.push_back(std::move(*unit.beside));
}

/// Everything of a report but what its heads say.
Report prepare(Capture capture, const Settings& settings) {
    Report report;
    report.capture = std::move(capture);
    report.settings = settings;
    Capture& input = report.capture;
    report.layers = chosen(settings.layers, input.layers, "layer");
    (void)chosen(settings.heads, input.heads, "head"); // refused before any work
    for (program::LayerAttention& layer : input.attention) {
        if (settings.temperature) layer.temperature = settings.temperature;
        if (settings.normalizer) layer.normalizer = settings.normalizer;
        const double temperature = layer.temperature.value_or(1);
        report.normalizers.push_back(
            {temperature, program::named_normalizer(layer.normalizer.value_or("softmax"), temperature)});
    }
    if (!input.sinks.empty())
        input.assumptions.push_back(
            settings.normalizer
                ? "sinks: not used, --normalizer is given"
                : "sinks: a key without a value in every row, softmax beside it; the audit takes it "
                  "for one more key with value 0");
    if (std::any_of(report.layers.begin(), report.layers.end(), [&](Index layer) {
            const attnscope::AnyNormalizer& any =
                report.normalizers[static_cast<std::size_t>(layer)].normalizer;
            return any.takes_sink() && !any.target<attnscope::Softmax>();
        }))
        input.assumptions.push_back(
            "audit: of the logits that softmax sees, behind the softcap or temperature of the normaliser");
    bool can_stream = input.kind == Capture::Kind::queries_and_keys && !input.bias;
    for (const Index layer : report.layers) {
        const attnscope::AnyNormalizer& normalizer =
            report.normalizers[static_cast<std::size_t>(layer)].normalizer;
        const auto feels_shifts = [](const attnscope::AnyNormalizer& any) {
            return !any.promises().shift_invariant;
        };
        if (input.kind == Capture::Kind::weights &&
            (feels_shifts(normalizer) ||
             (settings.beside && feels_shifts(program::named_normalizer(*settings.beside)))))
            throw program::usage_error(
                "--normalizer: stored weights tell the logits of softmax up to a constant only, which this "
                "normaliser would feel; it needs q and k, or logits");
        can_stream = can_stream && normalizer.target<attnscope::Softmax>() != nullptr;
    }
    const Index most_logits = settings.analysis.streamed_above;
    report.streamed =
        settings.stream.value_or(can_stream && input.queries > most_logits / std::max<Index>(1, input.keys));
    if (report.streamed && !can_stream)
        throw program::usage_error("--stream: only softmax of q and k is streamed");

    return report;
}

/// What a model loses under the normaliser that was asked for beside its own, at its temperature.
void add_beside_loss(Report& report) {
    if (report.beside.empty() || !report.capture.loss_under) return;
    const HeadNormalizer& own = report.normalizers[static_cast<std::size_t>(report.layers.front())];
    report.beside_loss =
        report.capture.loss_under(program::named_normalizer(*report.settings.beside, own.temperature));
}

/// The heads of a report as units of work, in their order.
std::vector<attnscope::WorkUnit> units_of(const Report& report) {
    const Capture& input = report.capture;
    std::vector<attnscope::WorkUnit> units;
    for (const Index batch : input.chosen_batches())
        for (const Index layer : report.layers) {
            const double pairs =
                attnscope::visible_pairs(input.mask({batch, layer, 0}), input.queries, input.keys);
            for (const Index head : chosen(report.settings.heads, input.heads, "head"))
                units.push_back({batch, layer, head, pairs});
        }
    return units;
}
HeadPlace place_of(const attnscope::WorkUnit& unit) { return {unit.document, unit.layer, unit.head}; }

/// Calls analyse(i, executor) for so many units: small heads of a layer side by side, as a model hands out one layer after
/// the other; of large heads, and of those that are too few for all threads, the rows. Then take(i) in their order.
template <class Analyse, class Take>
void side_by_side(const Report& report, std::span<const attnscope::WorkUnit> units, const Analyse& analyse,
                  const Take& take) {
    constexpr Index most_logits = Index(1) << 26; // half a gigabyte of them
    const Index threads = report.settings.threads,
                logits = report.streamed ? 1 : std::max<Index>(1, report.capture.queries * report.capture.keys),
                at_once = std::clamp<Index>(most_logits / logits, 1, threads);
    program::Progress progress("analysing heads", units.size());
    std::mutex guard;
    for (std::size_t begin = 0; begin < units.size();) {
        std::size_t end = begin;
        while (end < units.size() && units[end].document == units[begin].document &&
               units[end].layer == units[begin].layer)
            ++end;
        Index count = static_cast<Index>(end - begin);
        if (count > at_once) count -= count % at_once;
        const Index together = std::min(count, at_once);
        const attnscope::Threads own((threads + together - 1) / together);
        attnscope::Threads{together}(count, [&](Index i) {
            analyse(begin + static_cast<std::size_t>(i), own);
            const std::lock_guard lock(guard);
            progress.step();
        });
        for (end = begin + static_cast<std::size_t>(count); begin < end; ++begin) take(begin);
    }
}

} // namespace

Report analyse(Capture capture, const Settings& settings, const UnitStates* states) {
    if (states && settings.patterns)
        throw program::usage_error("--html: states hold no patterns of attention; leave out --states");
    Report report = prepare(std::move(capture), settings);
    const std::vector<attnscope::WorkUnit> units = units_of(report);
    if (settings.patterns)
        report.plan = plan_patterns(
            static_cast<Index>(units.size()), report.capture.queries, report.capture.keys,
            std::all_of(report.layers.begin(), report.layers.end(),
                        [&](Index layer) { return report.capture.layer(layer).causal.value_or(false); }),
            report.streamed);
    std::vector<std::optional<UnitResult>> done(units.size());
    side_by_side(
        report, units,
        [&](std::size_t number, const attnscope::Threads& executor) {
            const HeadPlace place = place_of(units[number]);
            if (states) done[number] = states->read(place);
            if (done[number]) return;
            done[number] = analyse_unit(report, place, executor);
            if (states) states->write(place, *done[number]);
        },
        [&](std::size_t number) {
            add_unit(report, place_of(units[number]), std::move(*done[number]));
            done[number].reset();
        });
    add_beside_loss(report);
    return report;
}

Report analyse_on(Capture capture, const Settings& settings, const UnitStates* states, const UnitRunner& run) {
    Report report = prepare(std::move(capture), settings);
    const std::vector<attnscope::WorkUnit> units = units_of(report);
    const attnscope::Threads executor(settings.threads);
    const auto work = [&](Index number) {
        const HeadPlace place = place_of(units[static_cast<std::size_t>(number)]);
        std::optional<UnitResult> done = states ? states->read(place) : std::nullopt;
        if (!done) {
            done = analyse_unit(report, place, executor);
            if (states) states->write(place, *done);
        }
        return state_of(place, *done).bytes();
    };
    run(static_cast<Index>(units.size()), work, [&](Index number, const std::vector<std::byte>& bytes) {
        attnscope::io::StateReader in("the result of a rank", bytes);
        const HeadPlace place = place_of(units[static_cast<std::size_t>(number)]);
        add_unit(report, place, unit_of(in, place));
    });
    add_beside_loss(report);
    return report;
}

Report merge(Capture capture, const Settings& settings, const UnitStates& states) {
    Report report = prepare(std::move(capture), settings);
    std::vector<std::string> missing;
    for (const attnscope::WorkUnit& unit : units_of(report)) {
        const HeadPlace place = place_of(unit);
        std::optional<UnitResult> done = states.read(place);
        if (!done) {
            missing.push_back(states.name_of(place));
            continue;
        }
        if (missing.empty()) add_unit(report, place, std::move(*done));
    }
    if (!missing.empty())
        throw std::runtime_error(fmt::format("{}: {} of the states are missing, the first is {}",
                                             states.folder(), missing.size(), missing.front()));
    add_beside_loss(report);
    return report;
}

ShardDone analyse_shard(Capture capture, const Settings& settings, const UnitStates& states,
                        const attnscope::Shard& shard) {
    const Report report = prepare(std::move(capture), settings);
    const std::vector<attnscope::WorkUnit> units = units_of(report);
    std::vector<attnscope::WorkUnit> own;
    for (const Index number : shard.units(units)) own.push_back(units[static_cast<std::size_t>(number)]);
    ShardDone done{static_cast<Index>(units.size()), static_cast<Index>(own.size()), 0};
    std::vector<char> was_there(own.size());
    side_by_side(
        report, own,
        [&](std::size_t number, const attnscope::Threads& executor) {
            const HeadPlace place = place_of(own[number]);
            was_there[number] = states.read(place).has_value();
            if (!was_there[number]) states.write(place, analyse_unit(report, place, executor));
        },
        [&](std::size_t number) { done.there += was_there[number] != 0; });
    return done;
}

Estimate estimate(Capture capture, const Settings& settings, double seconds) {
    const Report report = prepare(std::move(capture), settings);
    const std::vector<attnscope::WorkUnit> units = units_of(report);
    Estimate result;
    result.units = static_cast<Index>(units.size());
    for (const attnscope::WorkUnit& unit : units) result.pairs += unit.pairs;
    const attnscope::Threads one(1);
    const auto start = std::chrono::steady_clock::now();
    double tried = 0;
    for (const attnscope::WorkUnit& unit : units) {
        analyse_unit(report, place_of(unit), one);
        tried += unit.pairs;
        result.calibration = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (result.calibration > seconds) break;
    }
    result.core_hours = tried > 0 ? result.calibration * result.pairs / tried / 3600 : 0;
    return result;
}

} // namespace report
