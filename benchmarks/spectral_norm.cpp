// What does the exact spectral norm of a row's Jacobian cost? Figures in microseconds per row.
#include "support/harness.hpp"

#include <Eigen/Eigenvalues>

namespace {

using namespace bench;

/// Largest eigenvalue of a symmetric matrix by power iteration from the all-different vector 1, 1/2, 1/3, ...
/// It is told the answer and stops within 1e-6 of it, which no user could do: the best case for it.
double power_iteration(const Matrix<double>& a, double answer, Eigen::VectorXd& x, Eigen::VectorXd& y) {
    x = Eigen::VectorXd::LinSpaced(a.rows(), 1, static_cast<double>(a.rows())).cwiseInverse().normalized();
    for (int step = 0; step < 1000000; ++step) {
        y.noalias() = a * x;
        const double value = x.dot(y);
        if (std::abs(value - answer) <= 1e-6 * answer) return value;
        x = y.normalized();
    }
    return std::numeric_limits<double>::quiet_NaN();
}

double largest_eigenvalue(const Matrix<double>& symmetric) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(symmetric, Eigen::EigenvaluesOnly);
    return solver.eigenvalues().maxCoeff();
}

void add_case(Index length) {
    const std::string row = "double, L=" + std::to_string(length);
    const attnscope::Softmax softmax;
    const attnscope::PointwiseNormalizer<attnscope::Softplus> softplus;

    struct Data {
        Matrix<double> z, p, general_p, jacobian;
        Eigen::VectorXd x, y;
        double value = 0, expected = 0;
    };
    const auto d = std::make_shared<Data>();
    d->z = logits<double>(1, length, false);
    d->p = d->general_p = Matrix<double>::Zero(1, length);
    const auto z = row_in(d->z, 0), p = row_in(d->p, 0), general_p = row_in(d->general_p, 0);
    softmax.apply<double>(z, row_out(d->p, 0));
    softplus.apply<double>(z, row_out(d->general_p, 0));
    const Work work{1, 1e3};

    const auto dense = [d, softmax] {
        if (d->jacobian.size() == 0) d->jacobian = attnscope::jacobian(softmax, d->z.row(0));
    };
    // The dense eigenvalues verify ours; they are computed once.
    const auto verify_value = [d, dense](const std::string& who) {
        if (d->expected == 0) dense(), d->expected = largest_eigenvalue(d->jacobian);
        verify_close(d->value, d->expected, 1e-12L, 0, who, "the spectral norm");
    };
    add(
        row, "spectral norm", work,
        [=] { d->value = attnscope::diagonal_minus_rank_one_norm<double>(p).value; }, verify_value);
    add(
        row, "all norms", work, [=] { d->value = attnscope::jacobian_norms(softmax, z, p).spectral.value; },
        verify_value);
    add(
        row, "softmax of the row", work, [=] { softmax.apply<double>(z, row_out(d->p, 0)); },
        [=](const std::string& who) { verify_close(d->p.sum(), 1, 1e-14L, 0, who, "the sum of the weights"); });
    add(
        row, "all norms, softplus", work,
        [=] { d->value = attnscope::jacobian_norms(softplus, z, general_p).spectral.value; },
        [=](const std::string& who) {
            const Matrix<double> j = attnscope::jacobian(softplus, d->z.row(0));
            verify_close(d->value, std::sqrt(largest_eigenvalue(j.transpose() * j)), 1e-11L, 0, who,
                         "the spectral norm");
        });
    add(
        row, "power iteration", work,
        [=] {
            dense(); // built before the timing
            d->value = power_iteration(d->jacobian, attnscope::diagonal_minus_rank_one_norm<double>(p).value,
                                       d->x, d->y);
        },
        [=](const std::string& who) {
            verify_close(d->value, attnscope::diagonal_minus_rank_one_norm<double>(p).value, 1.1e-6L, 0, who,
                         "the spectral norm");
        },
        length > 512);
    add(
        row, "dense eigenvalues", work,
        [=] {
            dense();
            d->value = d->expected = largest_eigenvalue(d->jacobian);
        },
        [=](const std::string& who) {
            verify_close(d->value, attnscope::diagonal_minus_rank_one_norm<double>(p).value, 1e-12L, 0, who,
                         "the spectral norm");
        },
        length > 512);
}

/// The same in float, beside its softmax; verified against double.
void add_float_case(Index length) {
    const std::string row = "float, L=" + std::to_string(length);
    const attnscope::Softmax softmax;
    struct Data {
        Matrix<float> z, p;
        float value = 0;
    };
    const auto d = std::make_shared<Data>();
    d->z = logits<float>(1, length, false);
    d->p = Matrix<float>::Zero(1, length);
    const auto z = row_in(d->z, 0), p = row_in(d->p, 0);
    softmax.apply<float>(z, row_out(d->p, 0));
    const Work work{1, 1e3};
    const auto verify_value = [d](const std::string& who) {
        const Matrix<double> wide = d->p.cast<double>();
        // `all norms` works in double; alone, the norm is right to a few units of float.
        verify_close(d->value, attnscope::diagonal_minus_rank_one_norm<double>(row_in(wide, 0)).value, 1e-6L, 0,
                     who, "the spectral norm");
    };
    add(
        row, "spectral norm", work, [=] { d->value = attnscope::diagonal_minus_rank_one_norm<float>(p).value; },
        verify_value);
    add(
        row, "all norms", work,
        [=] { d->value = static_cast<float>(attnscope::jacobian_norms(softmax, z, p).spectral.value); },
        verify_value);
    add(
        row, "softmax of the row", work, [=] { softmax.apply<float>(z, row_out(d->p, 0)); },
        [=](const std::string& who) { verify_close(d->p.sum(), 1, 1e-5L, 0, who, "the sum of the weights"); });
}

} // namespace

int main(int argc, char** argv) {
    for (const Index length : {128, 512, 2048}) {
        add_case(length);
        add_float_case(length);
    }
    return run(argc, argv,
               "Spectral norm of the softmax Jacobian, exact: microseconds per row, median, one thread",
               {"spectral norm", "all norms", "softmax of the row", "all norms, softplus", "power iteration",
                "dense eigenvalues"});
}
