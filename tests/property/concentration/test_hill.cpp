// Hill numbers and Renyi entropies of every order.
#include <attnscope/concentration/hill.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>

using namespace attnscope_test;
using attnscope::hill_number;
using attnscope::renyi_entropy_nats;
using attnscope::Softmax;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// H_a and its forward error. A relative error eta_i of e^{z_i - max z} moves log sum p^a by
/// a sum (q_i - p_i) eta_i, q = p^a/sum p^a; with eta from the arguments' three roundings and exp. On top comes
/// a relative error for the sums.
struct Renyi {
    Ref value = 0;
    Ref error = 0;
};

template <class T>
Renyi reference_renyi(const RefRow& z, double order, double temperature) {
    const FamilyReference reference(SoftmaxKey{temperature});
    const ReferenceRow row = reference.row(z);
    const Ref a = order, u = unit_roundoff<T> + unit_roundoff<Ref>, delta = a - 1;
    Renyi result;
    if (order == 0) {
        result.value = std::log(Ref(row.visible));
        result.error = 2 * unit_roundoff<SumScalar<T>> * result.value;
        return result;
    }
    const Ref top = row.log_weight[row.top]; // log p1
    // Keys that underflow: e^{-u}(1+u) each at u = -log(min).
    const Ref smallest = std::numeric_limits<T>::min();
    const Ref lost = Ref(row.visible) * smallest * (1 - std::log(smallest));
    if (std::isinf(order)) {
        result.value = -top;
        result.error = result.value * (3 * u + plain_sum_error<T>(row.visible));
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref && i != row.top)
                result.error += row.weights[i] * u * (3 * (top - row.log_weight[i]) + 2);
        result.error += lost;
        return result;
    }
    if (std::abs(delta) < Ref(0.1)) {
        Ref sum = 0; // sum p (p^delta - 1), all terms of one sign
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) sum += row.weights[i] * std::expm1(delta * row.log_weight[i]);
        result.value = delta == 0 ? row.entropy : -std::log1p(sum) / delta;
    } else {
        Ref sum = 0; // sum over the others of (p/p1)^a
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref && i != row.top) sum += std::exp(a * (row.log_weight[i] - top));
        result.value = -(a * top + std::log1p(sum)) / delta;
    }
    // |q_i - p_i| a/|1-a| = a p_i |p_i^delta/sum p^a - 1|/|delta|; p^delta/sum p^a = exp(delta (log p + H_a)).
    for (std::size_t i = 0; i < z.size(); ++i) {
        if (z[i] == masked_ref || i == row.top) continue;
        const Ref x = row.log_weight[i] + result.value;
        const Ref moved = delta == 0 ? std::abs(x) : std::abs(std::expm1(delta * x) / delta);
        result.error += a * row.weights[i] * moved * u * (3 * (top - row.log_weight[i]) + 2);
    }
    result.error += result.value * (16 * u + 2 * plain_sum_error<T>(row.visible)) + lost;
    return result;
}

} // namespace

TEMPLATE_TEST_CASE("Renyi entropies agree with the reference at every order", "[hill]", float, double) {
    using T = TestType;
    Worst orders, near_one;
    for_each_row<T>(test_seed(), lengths, 1, [&](Where where, const std::vector<T>& z) {
        for (double temperature : {0.5, 1.0, 2.0}) {
            where.temperature = temperature;
            if (visible_count(z) == 0) {
                orders.meet(std::isnan(renyi_entropy_nats(in(z), 2.0, temperature)), where);
                continue;
            }
            for (double order : {0.0, 0.25, 0.5, 0.9, 1.0, 1.5, 2.0, 3.0, 20.0, infinity}) {
                const Renyi exact = reference_renyi<T>(widen(z), order, temperature);
                orders.meet(std::abs(Ref(renyi_entropy_nats(in(z), order, temperature)) - exact.value),
                            exact.error, where);
            }
            for (double step : {1e-12, 1e-9, 1e-6, 1e-4, 1e-3}) {
                for (double order : {1 - step, 1 + step}) {
                    const Renyi exact = reference_renyi<T>(widen(z), order, temperature);
                    near_one.meet(std::abs(Ref(renyi_entropy_nats(in(z), order, temperature)) - exact.value),
                                  exact.error, where);
                }
            }
        }
    });
    ATTNSCOPE_CHECK_WORST(orders);
    ATTNSCOPE_CHECK_WORST(near_one);
}

TEMPLATE_TEST_CASE("Hill numbers fall with the order and end where they should", "[hill]", float, double) {
    using T = TestType;
    Worst monotone, ends;
    for_each_row<T>(test_seed(), lengths, 1, [&](const Where& where, const std::vector<T>& z) {
        const auto row = attnscope::row_statistics(in(z), 1.0);
        if (!row.normal()) return;
        const Eigen::Map<const attnscope::Row<T>> map(z.data(), static_cast<Index>(z.size()));
        Ref last = 0, last_error = 0;
        for (double order : {0.0, 0.1, 0.5, 0.99, 1 - 1e-7, 1.0, 1 + 1e-7, 1.01, 2.0, 5.0, 50.0, infinity}) {
            const Renyi exact = reference_renyi<T>(widen(z), order, 1);
            const Ref number = hill_number(map, order);
            const Ref error = number * (exact.error + 4 * unit_roundoff<SumScalar<T>>);
            if (order > 0) monotone.meet(number - last, error + last_error, where);
            last = number;
            last_error = error;
            const auto equals = [&](Ref value) { ends.meet(std::abs(number - value), 2 * error, where); };
            if (order == 0) equals(Ref(row.visible));
            if (order == 1) equals(std::exp(Ref(row.entropy_nats())));
            if (order == 2) equals(row.participation_ratio());
            if (std::isinf(order)) equals(1 / Ref(row.max_weight()));
        }
    });
    ATTNSCOPE_CHECK_WORST(monotone);
    ATTNSCOPE_CHECK_WORST(ends);
}

TEMPLATE_TEST_CASE("Hill numbers of equal keys count them", "[hill]", float, double) {
    using T = TestType;
    for (std::size_t n : lengths) {
        attnscope::Row<T> z = attnscope::Row<T>::Constant(static_cast<Index>(n) + 3, T(2.5));
        z[0] = z[1] = z[static_cast<Index>(n) + 2] = -std::numeric_limits<T>::infinity();
        Worst worst;
        for (double order : {0.0, 0.5, 1 - 1e-12, 1.0, 1 + 1e-5, 2.0, 7.0, infinity}) {
            const Ref number = hill_number(z, order);
            worst.meet(std::abs(number - Ref(n)),
                       Ref(n) * (20 * unit_roundoff<T> * std::log(Ref(n) + 1) + 2 * plain_sum_error<T>(n)),
                       Where{"equal", n});
        }
        ATTNSCOPE_CHECK_WORST(worst);
    }
    const attnscope::Row<T> row = attnscope::Row<T>::Zero(3);
    CHECK_THROWS_AS(hill_number(row, -0.5), attnscope::invalid_argument);
    CHECK_THROWS_AS(hill_number(row, std::numeric_limits<double>::quiet_NaN()), attnscope::invalid_argument);
    for (T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
        attnscope::Row<T> special = row;
        special[2] = bad;
        for (double order : {0.0, 1.0, 2.0, infinity}) CHECK(std::isnan(hill_number(special, order)));
    }
}
