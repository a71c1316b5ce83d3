// Compiled with EIGEN_DONT_VECTORIZE: without packets everything is one scalar at a time, and gives the same
// figures.
#include <attnscope/attnscope.hpp>

#include <cmath>
#include <iostream>

using attnscope::Index;
using attnscope::Mask;
using attnscope::Matrix;

namespace {

constexpr Index length = 40, width = 5;

template <class T>
Matrix<T> waves(double step) {
    Matrix<T> m(length, width);
    for (Index i = 0; i < m.size(); ++i)
        m.data()[i] = static_cast<T>(std::sin(step * static_cast<double>(i + 1)));
    return m;
}

bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

/// Entropy and d(3) of a causal row, from the definitions.
struct Expected {
    double entropy = 0, distance = 0;
};
Expected expected(const Matrix<double>& q, const Matrix<double>& k, const Matrix<double>& v, double scale,
                  Index query) {
    const Index n = query + 1;
    Eigen::VectorXd p = scale * (k.topRows(n) * q.row(query).transpose());
    p = (p.array() - p.maxCoeff()).exp();
    p /= p.sum();
    Expected result;
    for (const double x : p) result.entropy -= x * std::log(x);
    Eigen::VectorXd left = p;
    Eigen::RowVectorXd s = Eigen::RowVectorXd::Zero(width);
    for (Index chosen = 0; chosen < 3; ++chosen) {
        Index at = 0;
        left.maxCoeff(&at);
        s += p[at] * v.row(at);
        left[at] = -1;
    }
    for (Index i = 0; i < n; ++i)
        if (left[i] >= 0) result.distance += (s - p[i] * v.row(i)).norm();
    return result;
}

template <class T>
bool right(double tolerance) {
    static_assert(attnscope::detail::Packet<T>::scalar);
    const Matrix<T> q = waves<T>(0.7), k = waves<T>(1.3), v = waves<T>(2.9);
    const attnscope::HeadView<T> head(q, k, v);
    const auto scan = attnscope::scan(head, Mask::causal());
    const Matrix<double> wide_q = q.template cast<double>(), wide_k = k.template cast<double>(),
                         wide_v = v.template cast<double>();
    const std::vector<Index> counts = {3};
    bool all = true;
    const auto meet = [&](Index query, double entropy, double distance) {
        const Expected e = expected(wide_q, wide_k, wide_v, static_cast<double>(head.scale()), query);
        all = all && near(entropy, e.entropy, tolerance) && near(distance, e.distance, tolerance);
    };
    attnscope::scan_distances(
        head, counts, attnscope::Softmax(),
        [&](Index query, std::span<const Index>, std::span<const double> distances) {
            if (query >= 2)
                meet(query, scan.rows[static_cast<std::size_t>(query)].statistics().entropy_nats(),
                     distances[0]);
        },
        Mask::causal());
    attnscope::scan_distance_curves(
        head, 3,
        [&](Index query, std::span<const Index>, const auto& curve) {
            if (query >= 2)
                meet(query, scan.rows[static_cast<std::size_t>(query)].statistics().entropy_nats(),
                     curve.cumulative[2]);
        },
        Mask::causal());
    return all;
}

} // namespace

int main() {
    const bool in_float = right<float>(1e-5), in_double = right<double>(1e-12);
    std::cout << "float: " << in_float << ", double: " << in_double << '\n';
    return in_float && in_double ? 0 : 1;
}
