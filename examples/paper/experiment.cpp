#include "experiment.hpp"
#include "source.hpp"

#include <attnscope/selection/critical_n.hpp>
#include <attnscope/streaming/threads.hpp>

#include <Eigen/Eigenvalues>

#include <mutex>

namespace paper {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Queries of each head that Algorithm 4 looks at: the last one, and some of the seeded rows.
std::vector<std::vector<Index>> sampled_rows(const Settings& settings, Index heads, Index queries) {
    std::vector<std::vector<Index>> rows(static_cast<std::size_t>(heads), {queries - 1});
    attnscope::SplitMix64 random(settings.seed);
    const Index wanted = std::min(settings.seeded_rows, heads * (queries - 1)); // beside the last rows
    for (Index drawn = 0; drawn < wanted;) {
        auto& head = rows[static_cast<std::size_t>(random.below(heads))];
        const Index query = random.below(queries - 1);
        if (std::find(head.begin(), head.end(), query) != head.end()) continue;
        head.push_back(query);
        ++drawn;
    }
    for (auto& head : rows) std::sort(head.begin(), head.end());
    return rows;
}

/// C [d, d] with C C^T = W W^T, so that v C has the inner products of v W.
Matrix<double> isometric(const Matrix<double>& w) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(Eigen::MatrixXd(w * w.transpose()));
    return solver.eigenvectors() * solver.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal();
}

/// The vectors that stand for the tokens of one head.
class TokenVectors {
public:
    TokenVectors(const Source& source, Token token) : model_(source.own), token_(token) {
        if ((token == Token::contribution && !source.own) || (token == Token::hidden && !source.hidden))
            throw std::invalid_argument("paper::run: these vectors of the model are not at hand");
    }

    void begin_layer(const models::LayerView<float>& layer) {
        if (token_ == Token::contribution) projection_ = model_->output_projection<double>(layer.layer);
    }
    /// The view of a head with them as values; `room` holds what must be computed.
    HeadView<float> view(const models::LayerView<float>& layer, Index head, Matrix<float>& room) const {
        const HeadView<float> own = layer.heads[head];
        if (token_ == Token::value) return own;
        if (token_ == Token::hidden) return {own.q(), own.k(), MatrixView<float>(layer.hidden), own.scale()};
        const Index d = own.v().cols();
        room = (own.v().map().cast<double>() * isometric(projection_.middleRows(head * d, d))).cast<float>();
        return {own.q(), own.k(), MatrixView<float>(room), own.scale()};
    }

private:
    const models::Model* model_;
    Token token_;
    Matrix<double> projection_;
};

} // namespace

OverHeads over(std::vector<double> numbers) {
    std::erase_if(numbers, [](double x) { return std::isnan(x); });
    if (numbers.empty()) {
        const double nan = std::numeric_limits<double>::quiet_NaN();
        return {nan, nan, nan};
    }
    std::sort(numbers.begin(), numbers.end());
    const double sum = std::accumulate(numbers.begin(), numbers.end(), 0.0);
    const auto quantile = [&](double share) {
        const double at = share * static_cast<double>(numbers.size() - 1);
        const auto below = static_cast<std::size_t>(at);
        const double rest = at - static_cast<double>(below);
        return numbers[below] + (rest > 0 ? rest * (numbers[below + 1] - numbers[below]) : 0);
    };
    return {sum / static_cast<double>(numbers.size()), quantile(0.1), quantile(0.9)};
}

std::optional<std::size_t> Result::place(Index count) const {
    const auto above = std::upper_bound(settings.counts.begin(), settings.counts.end(), count);
    if (above == settings.counts.begin()) return std::nullopt;
    return static_cast<std::size_t>(above - settings.counts.begin() - 1);
}

OverHeads Result::over_heads(Figure figure, std::size_t length, std::size_t count) const {
    std::vector<double> numbers;
    for (const HeadResult& head : heads) numbers.push_back(head.at_length[length].at(figure, count));
    return over(std::move(numbers));
}

Index Result::rows(std::size_t length, std::size_t count) const {
    Index sum = 0;
    for (const HeadResult& head : heads) sum += head.at_length[length].rows[count];
    return sum;
}

CriticalN Result::critical(std::size_t length) const {
    CriticalN result;
    result.length = settings.lengths[length];
    for (std::size_t c = 0; c < settings.counts.size(); ++c) {
        std::vector<double> top, random;
        for (const HeadResult& head : heads) {
            top.push_back(head.at_length[length].at(distance(), c));
            random.push_back(head.at_length[length].at(random_distance(), c));
        }
        result.p_values.push_back(attnscope::kolmogorov_smirnov(top, random).p_value);
        if (!result.count && result.p_values.back() >= settings.level) result.count = settings.counts[c];
    }
    return result;
}

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
    Result result;
    result.settings = std::move(settings);
    result.model = source.model;
    result.shape = source.shape;
    result.text = source.text;
    result.tokens = source.tokens;
    result.available = source.available;
    result.layers = source.layers;
    result.heads_per_layer = source.heads;
    result.trained = source.trained;
    const Index heads = source.layers * source.heads;
    result.heads.resize(static_cast<std::size_t>(heads));
    const auto sampled = sampled_rows(result.settings, heads, result.tokens);

    const attnscope::Threads threads(result.settings.threads);
    TokenVectors vectors(source, result.settings.token);
    program::Progress progress("analysing heads", static_cast<std::size_t>(heads));
    std::mutex guard;
    const auto begin = Clock::now();
    double analysis = 0;
    const bool gpt2 = source.own && source.own->config().family == models::Family::gpt2;
    Matrix<double> projections; // of the layer at hand
    const auto analyse = [&](const models::LayerView<float>& layer) {
        const auto start = Clock::now();
        vectors.begin_layer(layer);
        if (gpt2) projections = source.own->input_projections<double>(layer.layer);
        // A head in three parts, the longest first, so that no thread waits long for the last one of a layer.
        threads(3 * source.heads, [&](Index task) {
            const Index head = task % source.heads, part = task / source.heads;
            const auto at = static_cast<std::size_t>(layer.layer * source.heads + head);
            HeadResult& found = result.heads[at];
            Matrix<float> room;
            if (part == 2) {
                found.plan = plan_of(layer.heads[head], layer.mask, result.settings);
                return;
            }
            const HeadInput input{layer.layer, head, vectors.view(layer, head, room), sampled[at]};
            if (part == 0) {
                add_curves(found, input, layer.mask, result.settings);
                const std::lock_guard lock(guard);
                result.vector_width = input.view.v().cols();
                progress.step();
                return;
            }
            add_audit(found, input, layer.mask, result.settings);
            if (gpt2) {
                const Index d = layer.heads[head].q().cols(), all = source.heads * d;
                const auto projection = [&](Index which) {
                    return MatrixView<double>(projections.data() + which * all + head * d, projections.rows(),
                                              d, projections.cols());
                };
                audit_projections(found.audit, layer.heads[head], layer.mask,
                                  {projection(0), projection(1), projection(2)});
            }
        });
        analysis += since(start);
    };
    result.loss = source.run(analyse);
    result.seconds = since(begin);
    result.forward_seconds = result.seconds - analysis;
    for (HeadResult& head : result.heads) { // in the order of the heads, whoever came first
        result.audit.merge(head.audit);
        head.audit = {};
    }
    return result;
}

} // namespace paper
