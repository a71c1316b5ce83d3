// attnscope-laws: where the heads of a capture stand to three laws about large n and deep stacks.

#include <attnscope/capture/load_head.hpp>
#include <support/capture.hpp>
#include <support/program.hpp>

#include <attnscope/attnscope.hpp>
#include <attnscope/io/safetensors.hpp>

namespace {

using attnscope::Index;
using Matrix = attnscope::Matrix<double>;

double median(std::vector<double> numbers) {
    if (numbers.empty()) return std::numeric_limits<double>::quiet_NaN();
    const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
    std::nth_element(numbers.begin(), middle, numbers.end());
    return *middle;
}

double share(const std::vector<double>& numbers, auto&& holds) {
    return static_cast<double>(std::count_if(numbers.begin(), numbers.end(), holds)) /
           static_cast<double>(numbers.size());
}

/// The inverse temperature at which a weight that grows with it comes to 1/2; infinity if it does not.
double half_weight(auto&& weight) {
    constexpr double most = 1e9;
    double low = 0, high = 1;
    while (high < most && weight(high) < 0.5) high *= 2;
    if (high >= most) return std::numeric_limits<double>::infinity();
    for (int step = 0; step < 40; ++step) {
        const double middle = (low + high) / 2;
        (weight(middle) < 0.5 ? low : high) = middle;
    }
    return high;
}

/// The same for keys that are uniform on a sphere, halfway between the limits of E p1.
double sphere_half_weight(double keys, Index dimension) {
    return half_weight([&](double beta) {
        const auto range = attnscope::sphere_expected_weight(keys, dimension, beta, 1000);
        return (range.lower + range.upper) / 2;
    });
}

/// Of the dimensions 2 to `most` the one in which uniform keys need this inverse temperature for half of the weight.
Index likest_dimension(double keys, double beta, Index most) {
    Index best = 2;
    double apart = std::numeric_limits<double>::infinity();
    for (Index d = 2; d <= most; ++d) {
        const double here = std::abs(std::log(sphere_half_weight(keys, d) / beta));
        if (here < apart) best = d, apart = here;
    }
    return best;
}

/// Figures of all rows, and of every head the median phase.
struct Rows {
    std::vector<double> weight, phase, nearest_phase, head_phase;
    std::vector<double> given, needed; ///< inverse temperatures of the rows that see half of the keys or more
};

/// Rows of a head that see three keys or more.
void add_head(Rows& rows, const attnscope::HeadRows& head, const attnscope::HeadVectors<double>& vectors,
              double temperature) {
    std::vector<double> descending, own, gaps;
    for (Index query = 0; query < head.logits.rows(); ++query) {
        descending.clear();
        for (Index key = 0; key < head.logits.cols(); ++key)
            if (const double z = head.logits(query, key); z > -std::numeric_limits<double>::infinity())
                descending.push_back(z);
        if (descending.size() < 3) continue;
        std::sort(descending.begin(), descending.end(), std::greater<>());
        const auto phase = attnscope::log_n_phase<double>(descending, temperature);
        rows.weight.push_back(attnscope::row_statistics(descending, temperature).max_weight());
        rows.phase.push_back(phase.phase());
        rows.nearest_phase.push_back(phase.nearest_phase());
        own.push_back(phase.phase());

        const auto visible = static_cast<Index>(descending.size());
        const bool directed =
            vectors.q.row(query).squaredNorm() > 0 && vectors.k.rowwise().squaredNorm().minCoeff() > 0;
        if (2 * visible < head.logits.cols() || !directed) continue;
        double squares = 0, nearest = -1;
        gaps.clear();
        const auto q = vectors.q.row(query);
        for (Index key = 0; key < head.logits.cols(); ++key) {
            if (!(head.logits(query, key) > -std::numeric_limits<double>::infinity())) continue;
            const auto k = vectors.k.row(key);
            squares += k.squaredNorm() / static_cast<double>(visible);
            gaps.push_back(q.dot(k) / (q.norm() * k.norm()));
            nearest = std::max(nearest, gaps.back());
        }
        rows.given.push_back(q.norm() * std::sqrt(squares) * std::abs(vectors.scale) / temperature);
        rows.needed.push_back(half_weight([&](double beta) {
            double sum = 0;
            for (const double cosine : gaps) sum += std::exp(beta * (cosine - nearest));
            return 1 / sum;
        }));
    }
    if (!own.empty()) rows.head_phase.push_back(median(own));
}

/// How far tokens are apart: |X - 1 mean|_F/|X|_F.
double apart(const Matrix& x) { return (x.rowwise() - x.colwise().mean()).norm() / x.norm(); }

/// The tensor [layers (+ 1), tokens, width] of what enters every layer, where the file has one.
std::vector<Matrix> read_stream(const attnscope::io::SafetensorsFile& file, std::string_view name,
                                Index tokens) {
    std::vector<Matrix> stream;
    if (!file.contains(name)) return stream;
    const auto& shape = file.info(name).shape;
    if (shape.size() != 3 || shape[1] != tokens)
        throw std::runtime_error(fmt::format("{}: {} must be [layers, {}, width]", file.path(), name, tokens));
    const std::vector<double> all = file.read<double>(name);
    for (Index layer = 0; layer < shape[0]; ++layer)
        stream.push_back(
            Eigen::Map<const Matrix>(all.data() + layer * shape[1] * shape[2], shape[1], shape[2]));
    return stream;
}

void print_rows(const Rows& rows, Index keys, Index width) {
    const auto above = [](double least) { return [least](double x) { return x >= least; }; };
    const auto [low, high] = std::minmax_element(rows.head_phase.begin(), rows.head_phase.end());
    fmt::print("\nlog-n phase: mean gap to the largest logit in units of log(n-1); 1 is critical\n"
               "rows of 3 keys or more                       {}\n"
               "phase, median of rows                        {:.3f}\n"
               "phase, median of a head's rows, over heads   {:.3f}, from {:.3f} to {:.3f}\n"
               "heads above 1                                {:.1f} %\n"
               "rows at most at 1 (p1 <= 1/2 whatever else)  {:.1f} %\n"
               "rows with the nearest gap at 1 (p1 >= 1/2)   {:.1f} %\n"
               "rows with p1 >= 1/2                          {:.1f} %\n",
               rows.weight.size(), median(rows.phase), median(rows.head_phase), *low, *high,
               100 * share(rows.head_phase, [](double x) { return x > 1; }),
               100 - 100 * share(rows.phase, [](double x) { return x > 1; }),
               100 * share(rows.nearest_phase, above(1)), 100 * share(rows.weight, above(0.5)));
    std::vector<double> ratio;
    for (std::size_t i = 0; i < rows.given.size(); ++i) ratio.push_back(rows.given[i] / rows.needed[i]);
    const double needed = median(rows.needed), number = static_cast<double>(keys);
    const Index dimension = likest_dimension(number, needed, width);
    fmt::print("\nkeys as directions: inverse temperature beta of beta cos(q,k), rows of {} keys or more\n"
               "beta = |q| rms|k| scale, median              {:.2f}\n"
               "beta for weight 1/2 on the nearest, median   {:.2f}\n"
               "rows that have it                            {:.1f} %\n"
               "beta for 1/2, uniform keys, n = {}, d = {}   {:.2f} (beta* {:.2f})\n"
               "d in which uniform keys need the median      {}{}\n",
               (keys + 1) / 2, median(rows.given), needed, 100 * share(ratio, above(1)), keys, width,
               sphere_half_weight(number, width), attnscope::sphere_inverse_temperature(number, width),
               dimension, dimension == width ? " or more" : "");
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Where do attention heads stand to three laws: the transition at beta of order log n "
        "(arXiv:2510.05554), the "
        "one of keys on a sphere at n^{2/(d-1)} (arXiv:2605.08505), and the collapse of tokens in depth "
        "(arXiv:2103.03404)?",
        "attnscope-laws");
    std::vector<std::string> inputs;
    app.add_option("CAPTURE", inputs,
                   "a safetensors file with q and k, and the residual stream as hidden [layers+1,n,D] or the "
                   "inputs of attention as attention_input [layers,n,D] where depth is to be seen")
        ->required()
        ->expected(1);
    const auto capture_options = program::add_capture_options(app, false);

    return program::run(app, argc, argv, [&] {
        program::keep_memory();
        const attnscope::Capture capture = program::open_capture(inputs, 1, capture_options());
        if (capture.kind != attnscope::Capture::Kind::queries_and_keys)
            throw program::usage_error("CAPTURE must have queries and keys");
        if (!capture.sinks.empty())
            throw program::usage_error("CAPTURE has sinks: the laws are about softmax without them");
        for (const auto& layer : capture.attention)
            if (const std::string name = layer.normalizer.value_or("softmax"); name != "softmax")
                throw program::usage_error(fmt::format("CAPTURE says {}: the laws are about softmax", name));
        const bool causal = capture.queries == capture.keys &&
                            std::all_of(capture.attention.begin(), capture.attention.end(),
                                        [](const auto& layer) { return layer.causal.value_or(false); });
        for (const std::string& line : capture.assumptions) fmt::print("{}\n", line);
        fmt::print("{}: {} layers, {} heads, {} keys\n", attnscope::printable(capture.name), capture.layers,
                   capture.heads, capture.keys);

        Rows rows;
        std::vector<Matrix> mean; // weights of a layer's heads
        std::vector<std::vector<double>> coefficients(static_cast<std::size_t>(capture.layers));
        const Index batch = capture.chosen_batches().front();
        for (Index layer = 0; layer < capture.layers; ++layer) {
            mean.emplace_back(Matrix::Zero(capture.queries, capture.keys));
            const double temperature = capture.layer(layer).temperature.value_or(1);
            for (Index head = 0; head < capture.heads; ++head) {
                const attnscope::HeadPlace place{batch, layer, head};
                const attnscope::HeadRows stored = attnscope::load_head(capture, place);
                add_head(rows, stored, attnscope::load_vectors(capture, place), temperature);
                Matrix weights(capture.queries, capture.keys);
                for (Index query = 0; query < capture.queries; ++query)
                    attnscope::Softmax(temperature)
                        .apply<double>(attnscope::MatrixView<double>(stored.logits).row(query),
                                       attnscope::RowOut<double>(weights.row(query).data(),
                                                                 static_cast<std::size_t>(capture.keys)));
                coefficients[static_cast<std::size_t>(layer)].push_back(
                    attnscope::dobrushin_coefficient(attnscope::MatrixView<double>(weights)));
                mean.back() += weights / static_cast<double>(capture.heads);
            }
        }
        if (rows.weight.empty() || rows.given.empty())
            throw std::runtime_error(fmt::format("{}: no row sees three keys", capture.name));
        print_rows(rows, capture.keys, capture.width.value_or(2));
        if (!causal) {
            fmt::print("\ndepth: left out, the layers are not causal self-attention\n");
            return;
        }

        const attnscope::io::SafetensorsFile file(inputs.front());
        std::vector<Matrix> stream = read_stream(file, "hidden", capture.keys);
        const bool residual = !stream.empty();
        if (!residual) stream = read_stream(file, "attention_input", capture.keys);
        fmt::print("\ndepth: delta of heads (median) and of the layer's mean weights; the share of differences "
                   "left by "
                   "the mean weights of all layers so far, alone\nand with half of every token kept");
        const bool seen = !stream.empty();
        if (seen)
            fmt::print("; |X - mean|/|X| of the first tokens through the same, and of the {}",
                       residual ? "residual stream after the layer" : "input of the layer's attention");
        fmt::print("\nlayer   heads    mean      alone  half kept{}\n",
                   seen ? "    X alone  X half kept       X" : "");
        std::vector<Matrix> kept;
        std::vector<attnscope::MatrixView<double>> alone, half;
        for (const Matrix& layer : mean)
            kept.push_back((layer + Matrix::Identity(layer.rows(), layer.cols())) / 2);
        std::vector<double> own;
        Matrix x_alone, x_half;
        if (seen) x_alone = x_half = stream.front();
        for (std::size_t layer = 0; layer < mean.size(); ++layer) {
            alone.emplace_back(mean[layer]);
            half.emplace_back(kept[layer]);
            const auto left = [&](const std::vector<attnscope::MatrixView<double>>& stack) {
                return attnscope::causal_stack_coefficient<double>(
                    std::span<const attnscope::MatrixView<double>>(stack), capture.keys);
            };
            own.push_back(attnscope::dobrushin_coefficient(attnscope::MatrixView<double>(mean[layer])));
            fmt::print("{:5}  {:.4f}  {:.4f}  {:9.3g}  {:9.3g}", layer, median(coefficients[layer]), own.back(),
                       left(alone), left(half));
            if (seen) {
                x_alone = (mean[layer] * x_alone).eval();
                x_half = (kept[layer] * x_half).eval();
                const std::size_t after = residual ? layer + 1 : layer;
                fmt::print("  {:9.3g}    {:9.3g}  {:.4f}", apart(x_alone), apart(x_half),
                           apart(stream.at(after)));
            }
            fmt::print("\n");
        }
        fmt::print("product of the coefficients of the layers: {:.3g}\n", attnscope::rank_collapse_factor(own));
        if (residual) fmt::print("|X - mean|/|X| before the first layer: {:.4f}\n", apart(stream.front()));
    });
}
