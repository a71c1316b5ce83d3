// Norms of the Jacobian against dense matrices in long double, their constants, and Lemma 2.
#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <support/reference.hpp>
#include <support/rows.hpp>

#include <tuple>

using namespace attnscope_test;
using attnscope::Exponential;
using attnscope::PointwiseNormalizer;
using attnscope::Quadratic;
using attnscope::Sigmoid;
using attnscope::Softmax;
using attnscope::Softplus;
using attnscope::Verdict;

namespace {

constexpr std::array<std::size_t, 9> dense_lengths = {1, 2, 3, 5, 8, 9, 16, 17, 33};

/// Weights as given, divided by their sum; 1 - p_i as the sum of the others. `off`: |sum - 1|.
struct GivenWeights {
    RefRow p, complement;
    Ref off = 0;

    template <class T>
    explicit GivenWeights(const std::vector<T>& weights) : p(widen(weights)), complement(weights.size()) {
        Ref sum = 0;
        std::size_t top = 0;
        for (std::size_t i = 0; i < p.size(); ++i) {
            sum += p[i];
            if (p[i] > p[top]) top = i;
        }
        Ref rest = 0;
        for (std::size_t i = 0; i < p.size(); ++i)
            if (i != top) rest += p[i];
        for (std::size_t i = 0; i < p.size(); ++i)
            complement[i] = (i == top ? rest : p[top] + (rest - p[i])) / sum;
        for (Ref& x : p) x /= sum;
        off = std::abs(sum - 1);
    }
};

/// lambda_max(diag p - p p^T), sum p = 1, by bisection of the secular equation: long rows.
Ref secular_root(RefRow p) {
    std::sort(p.begin(), p.end(), std::greater<>());
    if (p.size() < 2 || p[1] == 0) return 0;
    if (p[0] == p[1]) return p[0];
    Ref low = p[1], high = p[0];
    for (int step = 0; step < 400; ++step) {
        const Ref x = high > 2 * low ? std::sqrt(low) * std::sqrt(high) : low + (high - low) / 2;
        if (!(x > low && x < high)) break;
        Ref others = 0;
        for (std::size_t j = 1; j < p.size(); ++j) others += p[j] / (x - p[j]);
        (p[0] / (p[0] - x) < others ? low : high) = x;
    }
    return low;
}

template <class T, class N>
struct Case {
    std::vector<T> p;
    attnscope::JacobianNorms<SumScalar<T>> norms;

    Case(const N& normalizer, const std::vector<T>& z) : p(z.size()) {
        normalizer.apply(in(z), out(p));
        norms = attnscope::jacobian_norms(normalizer, in(z), in(p));
    }
};

/// The spectral norm of softmax is found in T: sums of n terms and the iteration's few units.
template <class T>
Ref spectral_error(std::size_t n) {
    return 16 * unit_roundoff<T> + 2 * sum_error<T>(n);
}

/// Relative error of the other norms beyond that of the weights: sums of n terms in the sum scalar, the
/// solvers' 16 units, and F'/F in T.
template <class T>
Ref own_error(std::size_t n, Ref slope_units) {
    return unit_roundoff<SumScalar<T>> * (2 * Ref(n) + 32) + unit_roundoff<T> * slope_units;
}

} // namespace

TEMPLATE_TEST_CASE("norms are those of the dense Jacobian", "[norms]", (std::tuple<float, Softmax>),
                   (std::tuple<double, Softmax>), (std::tuple<double, PointwiseNormalizer<Exponential>>),
                   (std::tuple<float, PointwiseNormalizer<Sigmoid>>),
                   (std::tuple<double, PointwiseNormalizer<Sigmoid>>),
                   (std::tuple<double, PointwiseNormalizer<Softplus>>),
                   (std::tuple<float, PointwiseNormalizer<Quadratic>>),
                   (std::tuple<double, PointwiseNormalizer<Quadratic>>)) {
    using T = std::tuple_element_t<0, TestType>;
    using N = std::tuple_element_t<1, TestType>;
    const N normalizer;
    const auto reference = reference_of(normalizer);
    Worst spectral, frobenius, column, one, infinity, entry, bracket, converged, cut;
    for_each_row<T>(test_seed(), dense_lengths, 1, [&](Where where, const std::vector<T>& z) {
        where.normalizer = normalizer.name();
        const Case<T, N> tested(normalizer, z);
        const auto& norms = tested.norms;
        const GivenWeights given(tested.p);
        if (visible_count(z) == 0) {
            spectral.meet(norms.spectral.value == 0 && norms.frobenius == 0 && norms.max_entry == 0, where);
            return;
        }
        const RefMatrix dense = dense_jacobian(given.p, given.complement, reference.row(widen(z)).slope);
        const ReferenceNorms exact = norms_of(dense);
        const Ref relative = 2 * given.off + own_error<T>(z.size(), reference.key().slope_units());
        // Below this, squares of entries underflow.
        const Ref floor = 4 * std::sqrt(Ref(std::numeric_limits<SumScalar<T>>::min()) * Ref(z.size()));
        const auto compare = [&](Worst& worst, Ref value, Ref expected, Ref scale) {
            worst.meet(std::abs(value - expected), relative * scale + floor, where);
        };
        compare(entry, norms.max_entry, exact.max_entry, exact.max_entry);
        compare(column, norms.column, exact.column, exact.column);
        compare(frobenius, norms.frobenius, exact.frobenius, exact.frobenius);
        compare(one, norms.one, exact.one, exact.one);
        compare(infinity, norms.infinity, exact.infinity, exact.infinity);
        // Relative perturbations of the entries move the spectral norm by at most their Frobenius norm.

        const Ref slack = (relative + spectral_error<T>(z.size())) * exact.frobenius + floor;
        spectral.meet(std::abs(Ref(norms.spectral.value) - exact.spectral), slack, where);
        bracket.meet(Ref(norms.spectral.bracket.lower) - exact.spectral, slack, where);
        bracket.meet(exact.spectral - Ref(norms.spectral.bracket.upper), slack, where);
        converged.meet(norms.spectral.converged, where);
        if (z.size() <= 9) {
            const Ref value = infinity_to_one_norm(dense), total = 2 * exact.frobenius * Ref(z.size());
            cut.meet(Ref(norms.infinity_to_one.lower) - value, relative * total + floor, where);
            cut.meet(value - Ref(norms.infinity_to_one.upper), relative * total + floor, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(spectral);
    ATTNSCOPE_CHECK_WORST(frobenius);
    ATTNSCOPE_CHECK_WORST(column);
    ATTNSCOPE_CHECK_WORST(one);
    ATTNSCOPE_CHECK_WORST(infinity);
    ATTNSCOPE_CHECK_WORST(entry);
    ATTNSCOPE_CHECK_WORST(bracket);
    ATTNSCOPE_CHECK_WORST(converged);
    ATTNSCOPE_CHECK_WORST(cut);
}

TEMPLATE_TEST_CASE("the spectral norm of general F beside a pole", "[norms]", Sigmoid, Softplus, Quadratic) {
    // J^T J is diag(g^2) plus rank two; counting its eigenvalues divides by g_i^2 - x. Rows are led to where
    // the largest eigenvalue meets g_i^2, by bisection of one logit.
    const PointwiseNormalizer<TestType> normalizer;
    const auto reference = reference_of(normalizer);
    const std::uint64_t seed = test_seed();
    Worst worst;
    std::size_t met = 0;
    for (std::size_t n : std::array<std::size_t, 4>{2, 3, 4, 6}) {
        SplitMix64 random = generator(seed, n, 61);
        for (int trial = 0; trial < 60; ++trial) {
            std::vector<double> z = normal_row<double>(random, n);
            for (double& x : z) x *= 3;
            if (trial % 3 == 0 && n > 3) z[2] = z[3]; // ties
            const std::size_t pole = static_cast<std::size_t>(random.below(static_cast<Index>(n)));
            const auto above_pole = [&](double moved) {
                z[0] = moved;
                const Case<double, PointwiseNormalizer<TestType>> tested(normalizer, z);
                const GivenWeights given(tested.p);
                const RefRow slope = reference.row(widen(z)).slope;
                const ReferenceNorms exact = norms_of(dense_jacobian(given.p, given.complement, slope));
                const Ref relative = 2 * given.off + own_error<double>(n, reference.key().slope_units());
                worst.meet(std::abs(Ref(tested.norms.spectral.value) - exact.spectral),
                           relative * exact.frobenius,
                           Where{"pole", n, moved, seed, "double", std::string(normalizer.name())});
                return exact.spectral > std::abs(given.p[pole] * slope[pole]);
            };
            double low = -8 * random.uniform(), high = 8 * random.uniform();
            const bool at_low = above_pole(low);
            if (at_low == above_pole(high)) continue;
            ++met;
            for (int step = 0; step < 50; ++step) {
                const double middle = low + (high - low) / 2;
                (above_pole(middle) == at_low ? low : high) = middle;
            }
        }
    }
    CHECK(met > 20);
    ATTNSCOPE_CHECK_WORST(worst);
}

TEST_CASE("spectral norms whose squared slopes overflow or underflow", "[norms]") {
    // Far from zero softplus is its argument, near zero log 2 + z/2: the Jacobian of both is a multiple of I - p 1^T, whose
    // norm is |p| |1|. Five keys: lanes of padding in a packet must not count.
    const std::vector<double> z = {1, 2, 3, 4, 5};
    std::vector<double> p(z.size());
    const auto check = [&](double t, double expected) {
        INFO("temperature 1e" << std::log10(t));
        const auto normalizer = attnscope::temperature(t) | PointwiseNormalizer<attnscope::Softplus>();
        normalizer.apply<double>(z, p);
        const auto norm =
            jacobian_norms(normalizer, attnscope::RowIn<double>(z), attnscope::RowIn<double>(p)).spectral.value;
        CHECK(std::abs(norm - expected) <= 1e-13 * expected);
    };
    for (const double t : {1e-20, 1e-150, 1e-160, 1e-200, 1e-300}) check(t, std::sqrt(5.0 * 55) / 15 / 15);
    for (const double t : {1e20, 1e150, 1e200, 1e300}) check(t, 0.5 / (5 * std::numbers::ln2) / t);
}

TEMPLATE_TEST_CASE("spectral norm and entries of long softmax rows", "[norms]", float, double) {
    using T = TestType;
    Worst spectral, frobenius;
    for_each_row<T>(test_seed(), lengths, 1, [&](Where where, const std::vector<T>& z) {
        for (double temperature : {0.05, 1.0, 50.0}) {
            where.temperature = temperature;
            const Softmax softmax(temperature);
            const Case<T, Softmax> tested(softmax, z);
            const GivenWeights given(tested.p);
            if (visible_count(z) == 0) continue;
            const Ref relative = 2 * given.off + own_error<T>(z.size(), 2);
            const Ref root = secular_root(given.p) / Ref(temperature);
            const Ref floor = 4 * std::sqrt(Ref(std::numeric_limits<SumScalar<T>>::min()) * Ref(z.size()));
            spectral.meet(std::abs(Ref(tested.norms.spectral.value) - root),
                          (2 * relative + spectral_error<T>(z.size())) * root + floor, where);
            Ref square = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                Ref others = 0;
                for (std::size_t j = 0; j < z.size(); ++j)
                    if (j != i) others += given.p[j] * given.p[j];
                square += given.p[i] * given.p[i] * (given.complement[i] * given.complement[i] + others);
            }
            const Ref norm = std::sqrt(square) / Ref(temperature);
            frobenius.meet(std::abs(Ref(tested.norms.frobenius) - norm), relative * norm + floor, where);
        }
    });
    ATTNSCOPE_CHECK_WORST(spectral);
    ATTNSCOPE_CHECK_WORST(frobenius);
}

TEMPLATE_TEST_CASE("norms from logits agree with exact weights to the weights' error", "[norms]", float,
                   double) {
    using T = TestType;
    Worst spectral, frobenius;
    for_each_row<T>(test_seed(), dense_lengths, 1, [&](Where where, const std::vector<T>& z) {
        for (double temperature : temperatures) {
            if (visible_count(z) < 2) continue;
            where.temperature = temperature;
            const auto reference = reference_of(Softmax(temperature));
            const ReferenceRow row = reference.row(widen(z));
            const RefRow error = reference.template weight_error<T>(widen(z));
            const Eigen::Map<const attnscope::Row<T>> map(z.data(), static_cast<Index>(z.size()));
            const auto norms = attnscope::jacobian_norms(Softmax(temperature), map);
            const RefMatrix dense = dense_jacobian(row.weights, row.complement, row.slope);
            const ReferenceNorms exact = norms_of(dense);
            // Every entry is of degree 2 in the weights.
            const Ref relative = 2 * *std::max_element(error.begin(), error.end()) + own_error<T>(z.size(), 2);
            const Ref floor = (Ref(z.size()) * Ref(std::numeric_limits<T>::min()) * 4 +
                               4 * std::sqrt(Ref(std::numeric_limits<SumScalar<T>>::min()) * Ref(z.size()))) /
                              Ref(temperature);
            spectral.meet(std::abs(Ref(norms.spectral.value) - exact.spectral),
                          (relative + spectral_error<T>(z.size())) * exact.frobenius + floor, where);
            frobenius.meet(std::abs(Ref(norms.frobenius) - exact.frobenius), relative * exact.frobenius + floor,
                           where);
        }
    });
    ATTNSCOPE_CHECK_WORST(spectral);
    ATTNSCOPE_CHECK_WORST(frobenius);
}

TEMPLATE_TEST_CASE("largest eigenvalue of diag(s) - s s^T/S", "[norms][spectral]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst value, bracket, early;
    for (std::size_t n : dense_lengths) {
        SplitMix64 random = generator(seed, n);
        for (int kind = 0; kind < 60; ++kind) {
            const Where where{"kind", n, static_cast<double>(kind), seed, scalar_name<T>()};
            std::vector<T> s(n);
            for (T& x : s) {
                switch (kind % 6) {
                case 0:
                    x = T(random.uniform());
                    break;
                case 1:
                    x = T(random.below(3));
                    break; // ties and zeros
                case 2:
                    x = T(std::exp(20 * random.normal() / 4));
                    break; // wide
                case 3:
                    x = T(1 + 1e-5 * random.uniform());
                    break; // nearly tied
                case 4:
                    x = T(1e-30 * random.uniform());
                    break; // one-hot to 1e-30
                default:
                    x = T(std::exp(-0.7 * double(&x - s.data())));
                    break; // geometric
                }
            }
            if (kind % 6 == 4) s[n / 2] = 3;
            RefMatrix dense{n, RefRow(n * n)};
            Ref sum = 0;
            for (T x : s) sum += x;
            for (std::size_t i = 0; i < n; ++i)
                for (std::size_t j = 0; j < n; ++j) {
                    Ref others = 0;
                    for (std::size_t k = 0; k < n; ++k)
                        if (k != i) others += s[k];
                    dense(i, j) = sum == 0 ? Ref(0) : (i == j ? s[i] * others : -Ref(s[i]) * s[j]) / sum;
                }
            const ReferenceNorms exact = norms_of(dense);
            const auto norm = attnscope::diagonal_minus_rank_one_norm(in(s));
            // Sums of n terms, three of them, and the iteration's few units.
            const Ref relative = unit_roundoff<T> * (16 + 3 * Ref(n));
            value.meet(std::abs(Ref(norm.value) - exact.spectral), relative * exact.spectral, where);
            value.meet(norm.converged, where);
            bracket.meet(Ref(norm.bracket.lower) - exact.spectral, relative * exact.spectral, where);
            bracket.meet(exact.spectral - Ref(norm.bracket.upper), relative * exact.spectral, where);
            const auto rough = attnscope::diagonal_minus_rank_one_norm(in(s), T(0.2));
            early.meet(std::abs(Ref(rough.value) - exact.spectral), (Ref(0.2) + relative) * exact.spectral,
                       where);
            early.meet(rough.steps <= norm.steps, where);
        }
    }
    ATTNSCOPE_CHECK_WORST(value);
    ATTNSCOPE_CHECK_WORST(bracket);
    ATTNSCOPE_CHECK_WORST(early);

    std::vector<T> s = {T(1), std::numeric_limits<T>::quiet_NaN(), T(2)};
    CHECK(std::isnan(attnscope::diagonal_minus_rank_one_norm(in(s)).value));
    s = {T(0), T(4), T(0)};
    CHECK(attnscope::diagonal_minus_rank_one_norm(in(s)).value == 0);
    s.clear();
    CHECK(attnscope::diagonal_minus_rank_one_norm(in(s)).value == 0);
}

TEST_CASE("near one-hot rows keep the relative accuracy of every norm", "[norms]") {
    Worst worst;
    for (int exponent = 10; exponent <= 130; exponent += 20) {
        for (std::size_t n : {std::size_t(2), std::size_t(3), std::size_t(9)}) {
            const Where where{"one-hot", n, static_cast<double>(exponent)};
            std::vector<double> p(n), z(n, 0.0);
            for (std::size_t i = 1; i < n; ++i)
                p[i] = std::pow(10.0, -exponent) * (1 + 0.25 * static_cast<double>(i));
            p[0] = 1;
            const GivenWeights given(p);
            const auto norms = attnscope::jacobian_norms(Softmax{}, in(z), in(p));
            const ReferenceNorms exact = norms_of(dense_jacobian(given.p, given.complement, RefRow(n, 1)));
            const Ref relative = 2 * given.off + own_error<double>(n, 0);
            worst.meet(std::abs(norms.spectral.value - exact.spectral), relative * exact.spectral, where);
            worst.meet(std::abs(norms.frobenius - exact.frobenius), relative * exact.frobenius, where);
            worst.meet(std::abs(norms.column - exact.column), relative * exact.column, where);
            worst.meet(std::abs(norms.one - exact.one), relative * exact.one, where);
            worst.meet(std::abs(norms.max_entry - exact.max_entry), relative * exact.max_entry, where);
            worst.meet(norms.infinity_to_one.lower == norms.infinity_to_one.upper, where);
        }
    }
    ATTNSCOPE_CHECK_WORST(worst);
}

TEMPLATE_TEST_CASE("the constants of the softmax norms hold and are attained at (1/2, 1/2, 0, ...)",
                   "[norms][corollary3]", float, double) {
    using T = TestType;
    using std::numbers::sqrt2_v;
    Worst holds, attained;
    const auto check = [&](const auto& norms, double temperature, Ref relative, bool equal,
                           const Where& where) {
        const Ref t = temperature;
        const std::array<std::pair<Ref, Ref>, 7> table = {{{norms.max_entry, 1 / (4 * t)},
                                                           {norms.column, sqrt2_v<Ref> / (4 * t)},
                                                           {norms.spectral.value, 1 / (2 * t)},
                                                           {norms.frobenius, 1 / (2 * t)},
                                                           {norms.one, 1 / (2 * t)},
                                                           {norms.infinity, 1 / (2 * t)},
                                                           {norms.infinity_to_one.upper, 1 / t}}};
        for (const auto& [norm, constant] : table) {
            if (equal)
                attained.meet(std::abs(norm - constant), relative * constant, where);
            else
                holds.meet(norm - constant, relative * constant, where);
        }
    };
    for_each_row<T>(test_seed(), lengths, 3, [&](Where where, const std::vector<T>& z) {
        for (double temperature : temperatures) {
            where.temperature = temperature;
            const Case<T, Softmax> tested(Softmax(temperature), z);
            check(tested.norms, temperature, 2 * GivenWeights(tested.p).off + own_error<T>(z.size(), 2), false,
                  where);
        }
    });
    for (std::size_t n : lengths) {
        if (n < 2) continue;
        for (double temperature : temperatures) {
            std::vector<T> z(n, -std::numeric_limits<T>::infinity());
            z[0] = z[n - 1] = T(0.75);
            const Case<T, Softmax> tested(Softmax(temperature), z);
            check(tested.norms, temperature, unit_roundoff<T> * 16, true, Where{"pair", n, temperature});
        }
    }
    ATTNSCOPE_CHECK_WORST(holds);
    ATTNSCOPE_CHECK_WORST(attained);
}

TEST_CASE("corollary 3: the sharp constant is attained, the published one fails there", "[corollary3]") {
    Worst mutants, published, formulas;
    for (std::size_t n : lengths) {
        if (n < 2) continue;
        for (double temperature : {0.05, 0.17, 0.2, 0.5, 1.0, 2.0, 50.0}) {
            const Where where{"pair", n, temperature};
            std::vector<double> z(n, -std::numeric_limits<double>::infinity());
            z[0] = z[n - 1] = -3;
            const Case<double, Softmax> tested(Softmax(temperature), z);
            const double error = 8 * std::numeric_limits<double>::epsilon();
            const auto sharp = attnscope::corollary3_sharp(tested.norms, temperature, error);
            mutants.meet(sharp.verdict() == Verdict::holds || sharp.verdict() == Verdict::within_rounding,
                         where);
            mutants.meet(std::abs(Ref(sharp.value) - Ref(sharp.measured)), Ref(sharp.tolerance), where);
            mutants.meet(sharp.tightened(0.99).verdict() == Verdict::violated, where);
            const auto bound = attnscope::corollary3_published(tested.norms, temperature, error);
            published.meet(bound.verdict() == Verdict::violated, where);
            formulas.meet(std::abs(Ref(bound.value) - std::min(1 / (4 * Ref(temperature)), std::sqrt(Ref(2)))),
                          4 * unit_roundoff<double> * Ref(bound.value), where);
        }
    }
    ATTNSCOPE_CHECK_WORST(mutants);
    ATTNSCOPE_CHECK_WORST(published);
    ATTNSCOPE_CHECK_WORST(formulas);
}

TEMPLATE_TEST_CASE("Lemma 2 holds for every F and is attained by two equal keys", "[lemma2]", Exponential,
                   Sigmoid, Softplus, Quadratic) {
    const PointwiseNormalizer<TestType> normalizer;
    const auto reference = reference_of(normalizer);
    Worst holds, second, attained, mutants;
    for_each_row<double>(test_seed(), lengths, 1, [&](Where where, const std::vector<double>& z) {
        where.normalizer = normalizer.name();
        if (visible_count(z) == 0) return;
        const Case<double, PointwiseNormalizer<TestType>> tested(normalizer, z);
        const ReferenceRow row = reference.row(widen(z));
        const RefRow error = reference.template weight_error<double>(widen(z));
        Ref slope = 0, gradient = 0, square = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            slope = std::max(slope, std::abs(row.slope[i]));
            gradient = std::max(gradient, std::abs(row.slope[i] * row.weights[i]));
            square += row.weights[i] * row.weights[i];
        }
        const double relative = static_cast<double>(*std::max_element(error.begin(), error.end()));
        const auto bound = attnscope::lemma2_sharp(tested.norms, static_cast<double>(slope), relative);
        holds.meet(bound.verdict() != Verdict::violated && bound.verdict() != Verdict::undefined, where);
        // |J|_2 <= sqrt(n) |p|_2 max|g|
        second.meet(Ref(tested.norms.spectral.value) - std::sqrt(Ref(row.visible) * square) * gradient,
                    Ref(tested.norms.spectral.value) * (3 * Ref(relative) + own_error<double>(z.size(), 8)) +
                        Ref(std::numeric_limits<double>::min()),
                    where);
    });
    const auto check = [&](const std::vector<double>& z, const Where& where) {
        const Case<double, PointwiseNormalizer<TestType>> tested(normalizer, z);
        const double slope = std::abs(normalizer.log_derivative(z.front()));
        const auto bound =
            attnscope::lemma2_sharp(tested.norms, slope, 32 * std::numeric_limits<double>::epsilon());
        attained.meet(bound.verdict() == Verdict::holds || bound.verdict() == Verdict::within_rounding, where);
        attained.meet(std::abs(Ref(bound.value) - Ref(bound.measured)), Ref(bound.tolerance), where);
        mutants.meet(bound.tightened(0.99).verdict() == Verdict::violated, where);
    };
    // p = (1/2, 1/2) and |F'/F| equal at both: J = (1, -1)^T (s_1, -s_2)/4, |J|_2 = |s|/2.
    for (std::size_t n : lengths) {
        if (n < 2) continue;
        for (double height : {-20.0, -2.0, -0.5, 0.25, 1.0, 8.0}) {
            std::vector<double> z(n, -std::numeric_limits<double>::infinity());
            z[0] = z[n - 1] = height;
            check(z, Where{"two equal keys", n, height, 0, "double", std::string(normalizer.name())});
            if (!std::is_same_v<TestType, Quadratic>) continue;
            z[n - 1] = -height; // F even: the derivative's sign does not matter
            check(z, Where{"two opposite keys", n, height, 0, "double", std::string(normalizer.name())});
        }
    }
    ATTNSCOPE_CHECK_WORST(holds);
    ATTNSCOPE_CHECK_WORST(second);
    ATTNSCOPE_CHECK_WORST(attained);
    ATTNSCOPE_CHECK_WORST(mutants);
}

TEMPLATE_TEST_CASE("softmax is cocoercive: <dp, dz> >= 2T |dp|^2", "[cocoercive]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    Worst worst;
    Ref closest = 0;
    for_each_row<T>(seed, lengths, 2, [&](Where where, const std::vector<T>& z) {
        for (double temperature : temperatures) {
            where.temperature = temperature;
            SplitMix64 random = generator(seed, z.size(), 3);
            std::vector<T> other = z;
            const double size = std::pow(10.0, 4 * random.uniform() - 3);
            for (T& x : other) x += static_cast<T>(size * random.normal());
            const std::vector<T> rows[2] = {z, other};
            std::vector<T> p[2];
            RefRow error[2];
            for (int k = 0; k < 2; ++k) {
                p[k].resize(z.size());
                Softmax(temperature).apply(in(rows[k]), out(p[k]));
                error[k] = reference_of(Softmax(temperature)).template weight_error<T>(widen(rows[k]));
            }
            Ref product = 0, square = 0, tolerance = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (p[0][i] == 0 && p[1][i] == 0) continue;
                const Ref dp = Ref(p[1][i]) - Ref(p[0][i]), dz = Ref(other[i]) - Ref(z[i]);
                const Ref e = Ref(p[0][i]) * error[0][i] + Ref(p[1][i]) * error[1][i] +
                              4 * Ref(std::numeric_limits<T>::min());
                product += dp * dz;
                square += dp * dp;
                tolerance += e * (std::abs(dz) + 2 * Ref(temperature) * (2 * std::abs(dp) + e));
            }
            worst.meet(2 * Ref(temperature) * square - product, tolerance, where);
            if (product > 1000 * tolerance)
                closest = std::max(closest, 2 * Ref(temperature) * square / product);
        }
    });
    ATTNSCOPE_CHECK_WORST(worst);
    // The constant cannot be raised: two equal keys, a small step.
    const std::vector<double> z = {0, 0}, other = {1e-4, -1e-4};
    const double p = 1 / (1 + std::exp(-2e-4)), dp = p - 0.5;
    CHECK(2 * (2 * dp * dp) == Catch::Approx(2 * dp * 1e-4).epsilon(1e-7));
    CHECK(closest > Ref(0.9));
}
