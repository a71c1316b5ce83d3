// What does attention of one head cost (L = 1024, d = 64, float)? Figures in ns per visible pair of query and
// key; the matrix products alone are the floor.
#include "support/harness.hpp"

namespace {

using namespace bench;

constexpr Index length = 1024, width = 64, block_rows = 64;

struct Data {
    Matrix<float> q, k, v, scores, output;
    Matrix<float> expected; ///< long double, rounded
};

Index visible(bool causal, Index query) { return causal ? query + 1 : length; }

template <class T>
void attend_by_loops(const Data& d, bool causal, Matrix<T>& output) {
    std::vector<T> p(static_cast<std::size_t>(length));
    for (Index i = 0; i < length; ++i) {
        const auto n = static_cast<std::size_t>(visible(causal, i));
        T top = -std::numeric_limits<T>::infinity(), sum = 0;
        for (std::size_t j = 0; j < n; ++j) {
            T dot = 0;
            for (Index c = 0; c < width; ++c)
                dot += static_cast<T>(d.q(i, c)) * static_cast<T>(d.k(Index(j), c));
            p[j] = dot / 8; // 1/sqrt(64)
            top = std::max(top, p[j]);
        }
        for (std::size_t j = 0; j < n; ++j) sum += p[j] = std::exp(p[j] - top);
        output.row(i).setZero();
        for (std::size_t j = 0; j < n; ++j)
            for (Index c = 0; c < width; ++c) output(i, c) += p[j] / sum * static_cast<T>(d.v(Index(j), c));
    }
}

/// The products in blocks of queries, as wide as the last query of the block sees.
void products(Data& d, bool causal, bool values) {
    for (Index begin = 0; begin < length; begin += block_rows) {
        const Index keys = visible(causal, begin + block_rows - 1);
        auto scores = d.scores.topLeftCorner(block_rows, keys);
        scores.noalias() = d.q.middleRows(begin, block_rows) * d.k.topRows(keys).transpose();
        if (values) d.output.middleRows(begin, block_rows).noalias() = scores * d.v.topRows(keys);
    }
}

void add_case(bool causal) {
    const auto d = std::make_shared<Data>();
    attnscope::SplitMix64 random(1);
    for (Matrix<float>* m : {&d->q, &d->k, &d->v}) *m = normal_matrix<float>(length, width, 1.5, random);
    d->scores.resize(block_rows, length);
    d->output.resize(length, width);
    Matrix<long double> exact(length, width);
    attend_by_loops(*d, causal, exact);
    d->expected = exact.cast<float>();

    const std::string row = causal ? "causal" : "dense ";
    const double pairs = static_cast<double>(causal ? length * (length + 1) / 2 : length * length);
    const attnscope::Mask mask = causal ? attnscope::Mask::causal() : attnscope::Mask::none();
    const auto check = [d](const std::string& who) {
        // Components are means of numbers up to 7; a sum of 1024 floats, and logits up to 30 in the exponent.
        verify((d->output - d->expected).cwiseAbs().maxCoeff() <= 1e-4f, who,
               "the output is off by more than 1e-4");
    };
    const auto check_products = [d, causal](bool values) {
        return [=](const std::string& who) {
            // The last block is what the buffer holds.
            const Index keys = visible(causal, length - 1), begin = length - block_rows;
            const Matrix<double> scores =
                d->q.bottomRows(block_rows).cast<double>() * d->k.topRows(keys).cast<double>().transpose();
            verify((d->scores.cast<double>() - scores).cwiseAbs().maxCoeff() <= 1e-3, who,
                   "the scores are wrong");
            const Matrix<double> output = scores * d->v.topRows(keys).cast<double>();
            verify(
                !values ||
                    (d->output.middleRows(begin, block_rows).cast<double>() - output).cwiseAbs().maxCoeff() <=
                        1e-4 * output.cwiseAbs().maxCoeff(),
                who, "the output is wrong");
        };
    };
    add(
        row, "attend", {pairs},
        [=] { d->output = attnscope::attend(d->q, d->k, d->v, attnscope::Softmax{}, mask).output; }, check);
    add(
        row, "loops", {pairs}, [=] { attend_by_loops(*d, causal, d->output); }, check);
    add(
        row, "q k^T alone", {pairs}, [=] { products(*d, causal, false); }, check_products(false));
    add(
        row, "q k^T and p v alone", {pairs}, [=] { products(*d, causal, true); }, check_products(true));
}

} // namespace

int main(int argc, char** argv) {
    add_case(true);
    add_case(false);
    return run(argc, argv,
               "Attention of a head, 1024 queries and keys of width 64, float: ns per visible pair, median",
               {"attend", "loops", "q k^T alone", "q k^T and p v alone"});
}
