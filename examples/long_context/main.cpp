// attnscope-long-context: exact statistics of every row of one long head, without the matrix of its weights.

#include <attnscope/attnscope.hpp>
#include <attnscope/streaming/shards.hpp>
#include <attnscope/streaming/threads.hpp>

#include <attnscope/capture/load_head.hpp>
#include <support/capture.hpp>
#include <support/program.hpp>

#include <sys/resource.h>

#if ATTNSCOPE_EXAMPLE_MPI
#include <attnscope/mpi.hpp>
#include <support/mpi_session.hpp>
#endif

namespace {

using namespace attnscope;
using State = RowState<float>;

struct LoadedHead {
    std::string name;
    Matrix<float> q, k, v; ///< v may be empty
    float scale = 0;
    Mask mask;
    std::string mask_name;
    std::vector<std::string> notes;  ///< about the capture, a line each
    std::optional<double> sink = {}; ///< of its logits
};

/// A seeded head whose first key draws every query a little.
LoadedHead synthetic_head(Index length, Index width, std::uint64_t seed) {
    LoadedHead head;
    head.name = fmt::format("synthetic, seed {} (not a trained model)", seed);
    head.scale = HeadView<float>::default_scale(width);
    SplitMix64 random(seed);
    for (Matrix<float>* m : {&head.q, &head.k, &head.v}) {
        m->resize(length, width);
        random.fill_normal(std::span<float>(m->data(), static_cast<std::size_t>(m->size())));
    }
    head.q.array() += 0.5F;
    head.k.row(0).setConstant(24 / std::sqrt(static_cast<float>(width)));
    return head;
}

/// One head of a capture, as its file says that it attends. Its scan is one of softmax of q and k.
LoadedHead scanned_head(const attnscope::Capture& capture, const attnscope::HeadPlace& place) {
    const auto refuse = [&](std::string_view what) {
        throw std::runtime_error(fmt::format("{}: {}", capture.name, what));
    };
    if (capture.kind != attnscope::Capture::Kind::queries_and_keys) refuse("needs tensors q and k");
    if (place.layer >= capture.layers || place.head >= capture.heads)
        throw program::usage_error(fmt::format("--layer, --head: {} has {} layers of {} heads", capture.name,
                                               capture.layers, capture.heads));
    if (capture.bias)
        refuse("has a bias of the logits, which a scan does not hold (attnscope-report takes it)");
    for (Index query = 0; query < capture.queries; ++query)
        if (capture.is_padding(place, query) && capture.mask(place).visible(query, capture.keys).count() > 0)
            refuse("has padding whose rows would count (attnscope-report leaves them out)");
    attnscope::HeadVectors<float> vectors = attnscope::load_vectors<float>(capture, place);
    const attnscope::LayerAttention& layer = capture.layer(place.layer);
    LoadedHead head;
    head.name = fmt::format("{}, layer {}, head {}", capture.name, place.layer, place.head);
    head.q = std::move(vectors.q);
    head.k = std::move(vectors.k);
    if (vectors.v) head.v = std::move(*vectors.v);
    head.scale = static_cast<float>(capture.scale(place.layer) / layer.temperature.value_or(1));
    head.mask = capture.mask(place);
    const Index window = layer.window.value_or(0);
    head.mask_name = fmt::format("{}{}", layer.causal.value_or(false) ? "causal" : "every query sees every key",
                                 window > 0 ? fmt::format(", window {}", window) : "");
    head.notes = capture.assumptions;
    for (const std::string& line : capture.warnings) head.notes.push_back("warning: " + line);
    if (const std::string name = layer.normalizer.value_or("softmax"); name != "softmax")
        head.notes.push_back(
            fmt::format("warning: the file says {}, what follows is about softmax of the same logits", name));
    if (!capture.sinks.empty()) {
        const double logit = capture.sinks[static_cast<std::size_t>(place.layer * capture.heads + place.head)];
        head.sink = logit / layer.temperature.value_or(1); // as the logits, which the scale divides by it
        head.notes.push_back(fmt::format(
            "sink: a key of logit {:.5g} without a value beside every row, which has its part of the "
            "weights; not in the entropy and participation ratio of the keys",
            logit));
    }
    return head;
}

double seconds_of(const std::function<void()>& work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// A line of the table: least, quartiles and most over the rows that have the figure, of its statistics beside the sink
/// (if there is one) and its leading keys.
template <class Figure>
void print_figure(std::string_view name, const Scan<float>& scan, Figure&& figure) {
    const auto figure_of = [&](Index row) {
        return static_cast<double>(figure(scan.with_sink(row), scan.rows[static_cast<std::size_t>(row)]));
    };
    std::vector<double> values;
    const Index rows = std::ssize(scan.rows);
    for (Index row = 0; row < rows; ++row)
        if (scan.rows[static_cast<std::size_t>(row)].status() == RowStatus::normal)
            if (const double x = figure_of(row); std::isfinite(x)) values.push_back(x);
    if (values.empty()) return;
    std::sort(values.begin(), values.end());
    const auto at = [&](double share) {
        return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
    };
    fmt::print("{:<28}{:>12.5g}{:>12.5g}{:>12.5g}{:>12.5g}{:>12.5g}{:>12.5g}\n", name, at(0), at(0.25), at(0.5),
               at(0.75), at(1),
               scan.rows.back().status() == RowStatus::normal ? figure_of(rows - 1) : std::nan(""));
}

/// The scan of a head, whole or in blocks, on the ranks of MPI or in this process.
class HeadScan {
public:
    HeadScan(const LoadedHead& head, const std::optional<BlockGrid::Size>& blocks, const Threads& executor)
        : head_(head), executor_(executor) {
        if (blocks) grid_.emplace(head.q.rows(), head.k.rows(), head.mask, *blocks);
    }

    /// Of the rows. Elsewhere than on rank 0, nothing.
    Scan<float> rows(bool output) const {
        ScanOptions options{.output = output};
        if (!grid_) {
            program::Progress progress("scanning row", static_cast<std::size_t>(head_.q.rows()));
            options.progress = [&](Index done, Index) {
                progress.reach(static_cast<std::size_t>(done));
                return true;
            };
            options.sink_logit = head_.sink;
            return scan(block({0, head_.q.rows()}, {0, head_.k.rows()}), head_.mask, options, executor_);
        }
        program::Progress progress("scanning block", static_cast<std::size_t>(grid_->size()));
        const auto begin_unit = [&](Index i, Index) { progress.reach(static_cast<std::size_t>(i)); };
#if ATTNSCOPE_EXAMPLE_MPI
        return scan_blocks(MPI_COMM_WORLD, *grid_, head_of_, head_.mask, options, head_.sink, executor_,
                           begin_unit);
#else
        BlockMerger<float> merger(*grid_, head_.sink);
        for (Index i = 0; i < grid_->size(); ++i) {
            begin_unit(i, 0);
            merger.take(scan_block(head_of_((*grid_)[i].queries, (*grid_)[i].keys), grid_->place(i), head_.mask,
                                   options, executor_));
        }
        return merger.finish();
#endif
    }

    /// Of what the keys collect from the rows of that scan.
    Row<double> columns(const Scan<float>& rows) const {
        if (!grid_)
            return scan_column_mass(block({0, head_.q.rows()}, {0, head_.k.rows()}), rows, head_.mask, {},
                                    executor_)
                .mass;
        std::vector<double> totals;
        for (const State& row : rows.rows) totals.push_back(row.statistics().log_sum_exp());
#if ATTNSCOPE_EXAMPLE_MPI
        return scan_block_columns(MPI_COMM_WORLD, *grid_, head_of_, std::move(totals), head_.mask, {},
                                  executor_)
            .mass;
#else
        ColumnMerger merger(*grid_);
        for (Index i = 0; i < grid_->size(); ++i) {
            const auto& [queries, keys] = (*grid_)[i];
            merger.take(
                scan_block_columns(head_of_(queries, keys), grid_->place(i),
                                   std::vector(totals.begin() + queries.begin, totals.begin() + queries.end),
                                   head_.mask, {}, executor_));
        }
        return merger.finish().mass;
#endif
    }

private:
    HeadView<float> block(const KeyRange& queries, const KeyRange& keys) const {
        const auto part = [](const Matrix<float>& m, const KeyRange& range) {
            return MatrixView<float>(m.data() + range.begin * m.cols(), range.size(), m.cols());
        };
        return {part(head_.q, queries), part(head_.k, keys),
                head_.v.size() > 0 ? part(head_.v, keys) : MatrixView<float>(), head_.scale};
    }

    const LoadedHead& head_;
    const Threads& executor_;
    std::optional<BlockGrid> grid_;
    std::function<HeadView<float>(KeyRange, KeyRange)> head_of_ = [this](KeyRange queries, KeyRange keys) {
        return block(queries, keys);
    };
};

} // namespace

#if ATTNSCOPE_EXAMPLE_MPI
constexpr const char *program_name = "attnscope-long-context-mpi", *block_help = "";
constexpr bool many_ranks = true;
#else
constexpr const char *program_name = "attnscope-long-context", *block_help = " [the whole head at once]";
constexpr bool many_ranks = false;
#endif

int main(int argc, char** argv) {
#if ATTNSCOPE_EXAMPLE_MPI
    const program::MpiSession session(argc, argv);
#endif
    CLI::App app("Exact statistics of every row of one attention head, of any length, in memory O(length): "
                 "entropy, weights, "
                 "sensitivity, the keys that collect weight. Without INPUT, a synthetic head is scanned.",
                 program_name);
    std::string query_block = "16384", key_block = "65536";
    std::string input, layer = "0", number = "0", length = "131072", width = "64", seed = "1",
                       threads = many_ranks ? std::string("1") // of each rank
                                            : std::to_string(std::max(1u, std::thread::hardware_concurrency()));
    bool output = false, no_sinks = false;
    app.add_option(
        "INPUT", input,
        "a safetensors or .npz file with q, k and optional v, each [layers,heads,n,d] or [heads,n,d]; it is "
        "causal unless its metadata say otherwise");
    app.add_option("--layer", layer, "of INPUT")->capture_default_str();
    app.add_option("--head", number, "of INPUT")->capture_default_str();
    app.add_option("--length", length, "keys and queries of the synthetic head")->capture_default_str();
    app.add_option("--dimension", width, "of the synthetic head")->capture_default_str();
    const auto capture_options = program::add_capture_options(app, false);
    app.add_flag("--output", output, "also compute the output o = sum p v of every row");
    app.add_flag("--no-sinks", no_sinks, "leave out the second pass, which finds the keys that collect weight");
    app.add_option("--threads", threads, "change nothing in the results")->capture_default_str();
    app.add_option("--seed", seed, "of the synthetic head")->capture_default_str();
    auto* const query_block_option = app.add_option(
        "--query-block", query_block,
        fmt::format("queries of a block: blocks are scanned apart and merged in their order{}", block_help));
    auto* const key_block_option =
        app.add_option("--key-block", key_block, fmt::format("keys of a block{}", block_help));
    if (many_ranks) {
        query_block_option->capture_default_str();
        key_block_option->capture_default_str();
    }

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        const Index n = program::whole_number<Index>("--length", length, 1, Index(1) << 24);
        const Index d = program::whole_number<Index>("--dimension", width, 1, 4096);
        const Threads executor(program::whole_number<Index>("--threads", threads, 1, 1024));
        const Index seed_number =
            program::whole_number<Index>("--seed", seed, 0, std::numeric_limits<Index>::max());
        attnscope::CaptureOptions options_of_capture = capture_options();
        if (options_of_capture.causal == false && options_of_capture.window)
            throw program::usage_error("--window: without the causal mask there is no window");
        LoadedHead head;
        const auto load = [&] {
            if (input.empty()) {
                if (options_of_capture.batch || options_of_capture.nhd || options_of_capture.scale)
                    throw program::usage_error("--batch, --layout, --scale: there is no INPUT");
                head = synthetic_head(n, d, static_cast<std::uint64_t>(seed_number));
                std::array<attnscope::LayerAttention, 1> own;
                own[0].causal = options_of_capture.causal.value_or(true);
                if (options_of_capture.window)
                    program::as_options(
                        [&] { attnscope::set_attention(own, "window", *options_of_capture.window, "window"); });
                head.mask = own[0].mask(n, n);
                const Index window = own[0].window.value_or(0);
                head.mask_name = fmt::format("{}{}", *own[0].causal ? "causal" : "every query sees every key",
                                             window > 0 ? fmt::format(", window {}", window) : "");
            } else {
                attnscope::Capture capture = program::open_capture({input}, 0, options_of_capture);
                for (attnscope::LayerAttention& own : capture.attention)
                    if (!own.causal) own.causal = true;
                const auto batches = capture.chosen_batches();
                if (batches.size() > 1)
                    capture.assumptions.push_back("batch 0 is scanned (--batch B picks another)");
                head = scanned_head(capture, {batches.front(),
                                              program::whole_number<Index>("--layer", layer, 0, 1 << 20),
                                              program::whole_number<Index>("--head", number, 0, 1 << 20)});
            }
        };
#if ATTNSCOPE_EXAMPLE_MPI
        agree(MPI_COMM_WORLD, load);
#else
        load();
#endif
        if (output && head.v.size() == 0) throw program::usage_error("--output: the input has no tensor v");
        const Index queries = head.q.rows(), keys = head.k.rows();
        const Mask& mask = head.mask;
        const double pairs = visible_pairs(mask, queries, keys);
        std::optional<BlockGrid::Size> blocks;
        if (many_ranks || query_block_option->count() + key_block_option->count() > 0)
            blocks = {program::whole_number<Index>("--query-block", query_block, 1, Index(1) << 24),
                      program::whole_number<Index>("--key-block", key_block, 1, Index(1) << 24)};
        const HeadScan head_scan(head, blocks, executor);
        fmt::print("head      {}\nshape     {} queries, {} keys, width {}, {}\n",
                   attnscope::printable(head.name), queries, keys, head.q.cols(), head.mask_name);
        for (const std::string& note : head.notes) fmt::print("taken     {}\n", note);

        Scan<float> result;
        const double first = seconds_of([&] { result = head_scan.rows(output); });
        Row<double> mass;
        const double second = no_sinks ? 0 : seconds_of([&] { mass = head_scan.columns(result); });
#if ATTNSCOPE_EXAMPLE_MPI
        if (session.rank() != 0) return;
#endif
        fmt::print("rows      {} normal, {} empty, {} with +inf, {} with NaN\n\n",
                   result.count(RowStatus::normal), result.count(RowStatus::empty),
                   result.count(RowStatus::infinite), result.count(RowStatus::nan));

        fmt::print("{:<28}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}\n", "over the rows", "least", "quartile",
                   "median", "quartile", "most", "last row");
        using Beside = SinkStatistics<double>;
        print_figure(head.sink ? "entropy of the keys, nats" : "entropy, nats", result,
                     [](const Beside& row, const State&) { return row.keys().entropy_nats(); });
        if (head.sink) {
            print_figure("entropy with the sink, nats", result,
                         [](const Beside& row, const State&) { return row.entropy_with_sink_nats(); });
            print_figure("weight of the sink", result,
                         [](const Beside& row, const State&) { return row.sink_mass(); });
        }
        print_figure("participation ratio, keys", result,
                     [](const Beside& row, const State&) { return row.keys().participation_ratio(); });
        print_figure("largest weight p1", result,
                     [](const Beside& row, const State&) { return row.max_weight(); });
        print_figure("mass of the 8 largest", result, [](const Beside& row, const State& state) {
            return double(state.top_mass(8)) * row.key_mass();
        });
        print_figure("log-sum-exp", result, [](const Beside& row, const State&) { return row.log_sum_exp(); });
        print_figure("largest logit", result,
                     [](const Beside& row, const State&) { return row.keys().max_logit; });
        print_figure("gap to the second", result,
                     [](const Beside& row, const State&) { return row.keys().logit_gap(); });
        print_figure("logit spread", result,
                     [](const Beside& row, const State&) { return row.keys().logit_spread(); });
        if (!head.sink) { // of softmax alone
            print_figure("spectral norm, at least", result, [](const Beside& row, const State&) {
                return softmax_spectral_bracket(row.keys()).lower;
            });
            print_figure("spectral norm, at most", result, [](const Beside& row, const State&) {
                return softmax_spectral_bracket(row.keys()).upper;
            });
        }
        if (output) {
            fmt::print("\nlargest |o| of a row: {:.5g}\n",
                       static_cast<double>(result.output.rowwise().norm().maxCoeff()));
        }
        const State& last = result.rows.back();
        const Beside beside = result.with_sink(queries - 1);
        fmt::print("\nlargest weights of the last row, key: weight\n");
        for (Index i = 0; i < last.leaders().size() && last.status() == RowStatus::normal; ++i)
            fmt::print("  {}: {:.5g}\n", last.leading_key(i),
                       beside.weight_of(static_cast<double>(last.leading_logit(i))));

        if (!no_sinks) {
            std::vector<Index> order;
            for (Index key = 0; key < keys; ++key)
                if (mass[key] == mass[key]) order.push_back(key);
            // The last keys are seen by few queries: a mean of at least 64 says something.
            std::erase_if(order,
                          [&](Index key) { return queries > 64 && mask.is_causal() && keys - key < 64; });
            std::partial_sort(order.begin(), order.begin() + std::min<std::ptrdiff_t>(5, std::ssize(order)),
                              order.end(), [&](Index a, Index b) { return mass[a] > mass[b]; });
            fmt::print("\nkeys that collect most, key: mean weight {}over the queries that see it\n",
                       head.sink ? "among the keys " : "");
            for (std::size_t i = 0; i < std::min<std::size_t>(5, order.size()); ++i)
                fmt::print("  {}: {:.5g}{}\n", order[i], mass[order[i]],
                           mass[order[i]] > sink_threshold ? ", a sink" : "");
        }
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        fmt::print("\ntime      {:.2f} s for the rows ({:.2f} ns a visible pair)", first, first / pairs * 1e9);
        if (!no_sinks) fmt::print(", {:.2f} s for the keys", second);
        fmt::print(
            ", {} threads\nmemory    {} MB at most, q, k and v included; the weights would take {:.0f} MB\n",
            executor.count(), usage.ru_maxrss / 1024, pairs * 4 / 1e6);
    });
}
