#include "experiment.hpp"
#include "source.hpp"

#include <attnscope/analysis/run_experiments.hpp>
#include <attnscope/streaming/threads.hpp>

#include <Eigen/Eigenvalues>

namespace paper {
namespace {

using attnscope::HeadView;
using attnscope::Matrix;
using attnscope::MatrixView;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// C [d, d] with C C^T = W W^T, so that v C has the inner products of v W.
Matrix<double> isometric(const Matrix<double>& w) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(Eigen::MatrixXd(w * w.transpose()));
    return solver.eigenvectors() * solver.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal();
}

/// A layer, with the vectors that stand for its tokens and, of GPT-2, its projections; refers to all arguments.
attnscope::ExperimentLayer<float> layer_of(const models::LayerView<float>& layer, const Source& source,
                                           Token token, const Matrix<double>& output,
                                           const Matrix<double>& input) {
    attnscope::ExperimentLayer<float> result;
    result.number = layer.layer;
    result.mask = layer.mask;
    result.head = [&](Index head) { return layer.heads[head]; };
    if (token == Token::hidden)
        result.token_vectors = [&](Index, Matrix<float>&) { return MatrixView<float>(layer.hidden); };
    if (token == Token::contribution)
        result.token_vectors = [&](Index head, Matrix<float>& room) {
            const MatrixView<float> v = layer.heads[head].v();
            room = (v.map().cast<double>() * isometric(output.middleRows(head * v.cols(), v.cols())))
                       .cast<float>();
            return MatrixView<float>(room);
        };
    if (input.size() > 0)
        result.projections = [&](Index head) {
            const Index d = layer.heads[head].q().cols(), all = source.heads * d;
            const auto of = [&](Index which) {
                return MatrixView<double>(input.data() + which * all + head * d, input.rows(), d, input.cols());
            };
            return attnscope::HeadProjections<double>{of(0), of(1), of(2)};
        };
    return result;
}

} // namespace

Source source_of(const models::Prompt& prompt, Index threads) {
    const models::Config& config = prompt.model.config();
    Source source;
    source.model = prompt.model.parameters().origin();
    source.shape = models::described(config);
    source.text = prompt.source;
    source.tokens = static_cast<Index>(prompt.ids.size());
    source.available = prompt.available;
    source.layers = config.layers;
    source.heads = config.heads;
    source.trained = dynamic_cast<const models::RandomParameters*>(&prompt.model.parameters()) == nullptr;
    source.own = &prompt.model;
    source.run = [&prompt, threads](const std::function<void(const models::LayerView<float>&)>& layer) {
        models::RunOptions<float> options;
        options.threads = threads;
        options.loss = prompt.ids.size() > 1;
        options.layer = layer;
        return prompt.model.run<float>(prompt.ids, options).loss;
    };
    return source;
}

Result run(const Source& source, Settings settings) {
    if ((settings.token == Token::contribution && !source.own) ||
        (settings.token == Token::hidden && !source.hidden))
        throw std::invalid_argument("paper::run: these vectors of the model are not at hand");
    Result result;
    static_cast<attnscope::Experiments&>(result) =
        attnscope::Experiments(std::move(settings.experiments), source.layers, source.heads);
    result.token = settings.token;
    result.threads = settings.threads;
    result.model = source.model;
    result.shape = source.shape;
    result.text = source.text;
    result.available = source.available;
    result.trained = source.trained;

    const attnscope::Threads threads(settings.threads);
    program::Progress progress("analysing heads", result.heads.size());
    const auto begin = Clock::now();
    double analysis = 0;
    result.loss = source.run([&](const models::LayerView<float>& layer) {
        const auto start = Clock::now();
        Matrix<double> output, input;
        if (settings.token == Token::contribution) output = source.own->output_projection<double>(layer.layer);
        if (source.own && source.own->config().family == models::Family::gpt2)
            input = source.own->input_projections<double>(layer.layer);
        auto of = layer_of(layer, source, settings.token, output, input);
        of.done = [&](Index) { progress.step(); };
        attnscope::run_experiments(result, of, threads);
        analysis += since(start);
    });
    result.seconds = since(begin);
    result.forward_seconds = result.seconds - analysis;
    return result;
}

std::vector<std::pair<std::string, std::string>> choices(const Result& result) {
    const attnscope::ExperimentOptions& options = result.options;
    const std::array<std::string_view, 3> tokens = {
        "value vectors of the head", "residual stream that enters the layer",
        "W_O v, what the head adds to the residual stream (in coordinates that keep its inner products)"};
    const std::array<std::string_view, 3> units = {"none are", "in Algorithm 4, precision, recall and F",
                                                   "everywhere"};
    const std::size_t last = result.last_length();
    const auto five = result.place(options.fixed_count);
    const Index heads = std::ssize(result.heads);
    Index normal = 0, skipped = 0;
    for (const attnscope::ExperimentHead& head : result.heads)
        normal += head.at_length[last].normal_rows, skipped += head.skipped;
    return {
        {"token vectors x_i (--vectors)", std::string(tokens[static_cast<std::size_t>(result.token)])},
        {"divided by their length (--unit-vectors)",
         std::string(units[static_cast<std::size_t>(options.unit_vectors)])},
        {"distance (--reading)", result.resultant() ? "resultant, |sum over the others of y_i - s|"
                                                    : "cumulative, sum over the others of |s - y_i|"},
        {"random selections",
         result.resultant() ? "sqrt(E d'^2), exact" : "main sum of E d (Theorem 1(2), eps = 0)"},
        {"rows with no more than N keys (--short-rows)",
         options.short_rows == attnscope::ShortRows::exclude
             ? fmt::format("left out; at N = {} these are {} of {} rows", five ? options.counts[*five] : 0,
                           five ? normal - result.rows(last, *five) : 0, normal)
             : "distance 0; other figures leave them out"},
        {"rows without weights (NaN, nothing visible)",
         fmt::format("{} of {}, left out", skipped, normal + skipped)},
        {"mean", "over the query tokens of a head, then over heads"},
        {"Kolmogorov-Smirnov level (--level)", fmt::format("{:g}, over {} heads", options.level, heads)},
        {"ball of Algorithm 4 (--radius)",
         options.radius ? fmt::format("radius {:g}", *options.radius)
                        : std::string("reaches to the nearest token that is not selected")},
        {"rows of Algorithm 4 and of the statements about expectations",
         fmt::format("{}: the last of each head and {} seeded ones",
                     heads + std::min(options.sampled_rows, heads * (result.tokens() - 1)),
                     options.sampled_rows)},
        {"directions of Algorithm 5", "one random unit vector over the visible keys for each row"},
        {"seed (--seed)", fmt::format("{}", options.seed)},
    };
}

} // namespace paper
