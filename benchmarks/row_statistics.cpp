// How fast are a row's statistics: log-sum-exp, entropy, two largest weights, sums of squared and cubed
// weights, spread of the logits? Figures in ns per element; softmax alone and a copy are yardsticks.
#include "peers/onednn.hpp"
#include "support/peer.hpp"
#include "support/softmax_check.hpp"

#include <cstring>

namespace {

using namespace bench;

enum Figure { log_sum_exp, entropy, first, second, squares, cubes, spread, figures };
constexpr const char* names[] = {"log-sum-exp",     "entropy",       "largest weight", "second weight",
                                 "squared weights", "cubed weights", "spread"};

/// One row of figures for each row of logits, in the scalar of the contender's result.
template <class A>
using Figures = Eigen::Array<A, Eigen::Dynamic, figures, Eigen::RowMajor>;

template <Real T>
using Statistics = attnscope::MatrixStatistics<attnscope::Accumulator<T>>;

template <Real T>
void statistics_by_rows(const Matrix<T>& z, Figures<attnscope::Accumulator<T>>& out) {
    for (Index i = 0; i < z.rows(); ++i) {
        const auto s = attnscope::row_statistics<T>(row_in(z, i));
        out.row(i) << s.log_sum_exp(), s.entropy_nats(), s.max_weight(), s.second_weight(), s.power_sum_2(),
            s.power_sum_3(), s.logit_spread();
    }
}

/// The columns of a matrix of figures.
template <class A>
Figures<A> figures_of(const attnscope::MatrixStatistics<A>& s) {
    Figures<A> out(s.entropy_nats.size(), int(figures));
    out << s.log_sum_exp, s.entropy_nats, s.max_weight, s.second_weight, s.power_sum_2, s.power_sum_3,
        s.logit_spread;
    return out;
}

/// Eigen on a block of rows: the whole matrix at once, or one row after the other. `u` and `e` are buffers of
/// the same shape. The clamp keeps masked keys from 0 times infinity.
template <Real T, class Z, class U, class E, class Out>
void statistics_by_eigen(const Z& z, bool masked, U&& u, E&& e, Out&& out) {
    using Column = Eigen::Array<T, Z::RowsAtCompileTime, 1>;
    const Column top = z.rowwise().maxCoeff();
    Column least = z.rowwise().minCoeff();
    if (masked)
        least = (z == -std::numeric_limits<T>::infinity())
                    .select(top.replicate(1, z.cols()), z)
                    .rowwise()
                    .minCoeff();
    u = (z.colwise() - top).max(T(-87));
    e = u.exp();
    const Column sum = e.rowwise().sum();
    out.col(log_sum_exp) = top + sum.log();
    out.col(entropy) = sum.log() - (e * u).rowwise().sum() / sum;
    out.col(squares) = e.square().rowwise().sum() / sum.square();
    out.col(cubes) = e.cube().rowwise().sum() / sum.cube();
    out.col(first) = sum.inverse();
    out.col(spread) = top - least;
    for (Index i = 0; i < z.rows(); ++i) {
        Index at;
        e.row(i).maxCoeff(&at);
        e(i, at) = T(0);
    }
    out.col(second) = e.rowwise().maxCoeff() / sum;
}

template <Real T, class Out>
void statistics_by_std(const T* z, Index n, Out&& out) {
    const T masked = -std::numeric_limits<T>::infinity();
    T top = masked, next = masked, least = -masked;
    for (Index i = 0; i < n; ++i) {
        if (z[i] > top)
            next = top, top = z[i];
        else if (z[i] > next)
            next = z[i];
        if (z[i] > masked && z[i] < least) least = z[i];
    }
    T sum = 0, weighted = 0, square = 0, cube = 0;
    for (Index i = 0; i < n; ++i) {
        if (z[i] == masked) continue;
        const T u = z[i] - top, e = std::exp(u);
        sum += e;
        weighted += e * u;
        square += e * e;
        cube += e * e * e;
    }
    out[log_sum_exp] = top + std::log(sum);
    out[entropy] = std::log(sum) - weighted / sum;
    out[first] = 1 / sum;
    out[second] = std::exp(next - top) / sum;
    out[squares] = square / (sum * sum);
    out[cubes] = cube / (sum * sum * sum);
    out[spread] = top - least;
}

/// All figures of all rows to `relative` and `absolute` errors, by long double.
template <Real T, class A>
void verify_figures(const Matrix<T>& z, const Figures<A>& out, long double relative, long double absolute,
                    const std::string& who) {
    using L = long double;
    for (Index i = 0; i < z.rows(); ++i) {
        std::vector<L> visible;
        for (Index j = 0; j < z.cols(); ++j)
            if (!std::isinf(z(i, j))) visible.push_back(z(i, j));
        std::sort(visible.begin(), visible.end(), std::greater<>());
        L sum = 0, weighted = 0, square = 0, cube = 0;
        for (const L x : visible) {
            const L e = std::exp(x - visible[0]);
            sum += e, weighted += e * (x - visible[0]), square += e * e, cube += e * e * e;
        }
        const L expected[] = {visible[0] + std::log(sum),
                              std::log(sum) - weighted / sum,
                              1 / sum,
                              std::exp(visible[1] - visible[0]) / sum,
                              square / (sum * sum),
                              cube / (sum * sum * sum),
                              visible.front() - visible.back()};
        for (int k = 0; k < figures; ++k)
            verify_close(out(i, k), expected[k], relative, absolute, who, names[k]);
    }
}

template <Real T>
void add_case(const char* scalar, bool masked, Index length) {
    using A = attnscope::Accumulator<T>;
    const Index rows = elements / length;
    const std::string row =
        std::string(scalar) + (masked ? " masked" : " dense ") + " L=" + std::to_string(length);
    const auto z = std::make_shared<const Matrix<T>>(logits<T>(rows, length, masked));
    const auto p = std::make_shared<Matrix<T>>(Matrix<T>::Zero(rows, length));
    const Work work{static_cast<double>(z->size())};

    const long double exact = std::same_as<T, float> ? 1e-6L : 1e-13L;
    const auto ours = std::make_shared<Statistics<T>>();
    add(
        row, "attnscope", work, [=] { attnscope::matrix_statistics(attnscope::MatrixView<T>(*z), *ours); },
        [=](const std::string& who) { verify_figures(*z, figures_of(*ours), exact, 0, who); });
    const auto by_rows = std::make_shared<Figures<A>>(rows, int(figures));
    add(
        row, "row by row", work, [=] { statistics_by_rows<T>(*z, *by_rows); },
        [=](const std::string& who) { verify_figures(*z, *by_rows, exact, 0, who); });

    // The others add up in T and take the entropy as a difference: errors that grow with the length and digits
    // lost on sharp rows are theirs by right.
    const auto theirs = std::make_shared<Figures<T>>(rows, int(figures));
    const auto check = [=](const std::string& who) {
        const long double error = std::numeric_limits<T>::epsilon() * static_cast<long double>(length + 64);
        verify_figures(*z, *theirs, error, error, who);
    };
    const auto buffer = std::make_shared<Matrix<T>>(rows, length);
    add(
        row, "Eigen whole matrix", work,
        [=] { statistics_by_eigen<T>(z->array(), masked, buffer->array(), p->array(), *theirs); }, check);
    add(
        row, "Eigen rows", work,
        [=] {
            for (Index i = 0; i < rows; ++i)
                statistics_by_eigen<T>(z->row(i).array(), masked, buffer->row(0).array(), p->row(0).array(),
                                       theirs->row(i));
        },
        check);
    add(
        row, "std::exp", work,
        [=] {
            for (Index i = 0; i < rows; ++i) statistics_by_std(row_in(*z, i).data(), length, theirs->row(i));
        },
        check);
    add(
        row, "our softmax", work,
        [=] {
            for (Index i = 0; i < rows; ++i) attnscope::Softmax{}.apply<T>(row_in(*z, i), row_out(*p, i));
        },
        [=](const std::string& who) { verify_softmax(*z, *p, true, T(64), who); });
#ifdef ATTNSCOPE_HAVE_ONEDNN
    if constexpr (std::same_as<T, float>) { // it has no softmax in double
        if (onednn_absence().empty()) {
            const auto peer = std::make_shared<OneDnnSoftmax>(z->data(), p->data(), rows, length);
            add(
                row, "oneDNN softmax", work, [=] { (*peer)(); },
                [=](const std::string& who) { verify_softmax(*z, *p, true, T(64), who); });
        }
    }
#endif
    if constexpr (std::same_as<T, float>) {
        const PeerFiles files;
        const std::vector<PeerRun> runs =
            run_peer("row_statistics.py", files.write("logits.npy", *z, {rows, length}) + "7");
        if (!runs.empty()) {
            attnscope::matrix_statistics(attnscope::MatrixView<T>(*z), *ours);
            verify_close(runs.front().checksum, ours->entropy_nats.sum(), 1e-4L, 0, "PyTorch, " + row,
                         "the sum of entropies");
            add_peer(row, "PyTorch", work, runs);
        }
    }
    add(
        row, "copy", work,
        [=] { std::memcpy(p->data(), z->data(), static_cast<std::size_t>(z->size()) * sizeof(T)); },
        [=](const std::string& who) { verify(*p == *z, who, "the copy differs"); });
}

} // namespace

int main(int argc, char** argv) {
    onednn_absence();
    for (const Index length : {128, 1024, 16384})
        for (const bool masked : {false, true}) {
            add_case<float>("float ", masked, length);
            add_case<double>("double", masked, length);
        }
    return run(argc, argv, "Statistics of a row (7 figures): ns per element, median, one thread",
               {"attnscope", "row by row", "Eigen whole matrix", "Eigen rows", "std::exp", "our softmax",
                "oneDNN softmax", "PyTorch", "copy"});
}
