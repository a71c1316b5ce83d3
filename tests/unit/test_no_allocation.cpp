// The kernels on spans, for every normaliser and scalar, allocate nothing.
//
// What is watched is malloc itself, because Eigen's containers do not go through operator new: in an ordinary
// build this file replaces it by one that counts, and under a sanitizer it asks the sanitizer to call it back.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define ATTNSCOPE_TEST_SANITIZER
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ATTNSCOPE_TEST_SANITIZER
#endif

namespace {

// A plain number: only the thread of the test counts, and malloc must not need anything that is set up later.
// Volatile, because the compiler knows that its own malloc changes no variable.
thread_local volatile int allocations = 0;

void count_one() noexcept { allocations = allocations + 1; }

} // namespace

#if defined(ATTNSCOPE_TEST_SANITIZER)

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, std::size_t),
                                                         void (*free_hook)(const volatile void*));
namespace {
bool watching() {
    static const bool installed =
        __sanitizer_install_malloc_and_free_hooks([](const volatile void*, std::size_t) { count_one(); },
                                                  [](const volatile void*) {}) > 0;
    return installed;
}
} // namespace

#elif defined(__GLIBC__)

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
    count_one();
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
    count_one();
    return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) noexcept {
    count_one();
    return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
    count_one();
    return __libc_memalign(alignment, size);
}
}
namespace {
bool watching() { return true; }
} // namespace

#else
namespace {
bool watching() { return false; }
} // namespace
#endif

namespace {

using attnscope::Index;
using attnscope::RowIn;
using attnscope::RowOut;

/// Allocations while `action` runs.
template <class F>
int count_allocations(F&& action) {
    const int before = allocations;
    action();
    return allocations - before;
}

/// Keeps the optimiser from removing an allocation or a result: code that it cannot see may read it here.
template <class T>
void keep(const T& value) {
#if defined(__GNUC__)
    asm volatile("" : : "r"(&value) : "memory");
#else
    static const volatile void* volatile escaped;
    escaped = &value;
#endif
}

/// Rows that reach every branch: ordinary, masked, tied, sharp, empty, infinite, NaN; lengths beside packets.
template <class T>
std::vector<std::vector<T>> rows() {
    const T infinity = std::numeric_limits<T>::infinity();
    std::vector<std::vector<T>> result;
    attnscope::SplitMix64 generator(17);
    for (const std::size_t n : {0u, 1u, 2u, 7u, 16u, 33u, 300u}) {
        std::vector<T> row(n);
        for (T& x : row) x = static_cast<T>(4 * generator.normal());
        result.push_back(row);
        if (n == 0) continue;
        row[n / 2] = -infinity;
        result.push_back(row);
        row[n / 3] = T(60);
        result.push_back(row);
        row[n - 1] = infinity;
        result.push_back(row);
        row[0] = std::numeric_limits<T>::quiet_NaN();
        result.push_back(row);
        result.push_back(std::vector<T>(n, T(1)));
        result.push_back(std::vector<T>(n, -infinity));
    }
    return result;
}

template <class T>
struct Buffers {
    explicit Buffers(std::size_t n) : p(n), v(n, T(1)), out(n) {}
    std::vector<T> p, v, out;
};

/// norms: how often the norms of its Jacobian may allocate.
template <class T, class N>
void check_normalizer(const N& normalizer, int norms = 0) {
    for (const std::vector<T>& row : rows<T>()) {
        Buffers<T> b(row.size());
        const RowIn<T> z(row);
        CAPTURE(normalizer.name(), row.size());
        CHECK(count_allocations([&] { keep(normalizer.template apply<T>(z, RowOut<T>(b.p))); }) == 0);
        const RowIn<T> p(b.p), v(b.v);
        CHECK(count_allocations([&] { normalizer.template jvp<T>(z, p, v, RowOut<T>(b.out)); }) == 0);
        CHECK(count_allocations([&] { normalizer.template vjp<T>(z, p, v, RowOut<T>(b.out)); }) == 0);
        CHECK(count_allocations([&] { keep(normalizer.template log_sum_exp<T>(z)); }) == 0);
        CHECK(count_allocations([&] { keep(jacobian_norms(normalizer, z, p)); }) <= norms);
        CHECK(count_allocations([&] {
                  keep(attnscope::finite_difference<T>(normalizer, z, p, v, T(0.125), RowOut<T>(b.out)));
              }) == 0);
    }
}

} // namespace

TEST_CASE("the counter sees what allocates", "[allocation]") {
    if (!watching()) ATTNSCOPE_SKIP("malloc cannot be watched on this platform");
    CHECK(count_allocations([] {
              void* memory = std::malloc(10);
              keep(memory);
              std::free(memory);
          }) == 1);
    CHECK(count_allocations([] {
              auto number = std::make_unique<double>(1.0);
              keep(number);
          }) == 1);
    CHECK(count_allocations([] {
              std::vector<double> row(100);
              keep(row);
          }) == 1);
    CHECK(count_allocations([] {
              Eigen::ArrayXf row(100);
              keep(row);
          }) == 1);
    CHECK(count_allocations([] {
              const Eigen::MatrixXd m = Eigen::MatrixXd::Ones(3, 4);
              keep(m);
          }) == 1);
    CHECK(count_allocations([] { keep(1.0); }) == 0);
    // A front door copies what it must, so a strided vector costs one more than a contiguous one.
    const Eigen::VectorXd z = Eigen::VectorXd::Ones(64);
    const int contiguous = count_allocations([&] { keep(attnscope::weights(attnscope::Softmax{}, z)); });
    const int reversed =
        count_allocations([&] { keep(attnscope::weights(attnscope::Softmax{}, z.reverse())); });
    CHECK(contiguous == 1);
    CHECK(reversed == 2);
}

TEMPLATE_TEST_CASE("normalisers and the norms of softmax allocate nothing", "[allocation]", float, double,
                   long double) {
    if (!watching()) ATTNSCOPE_SKIP("malloc cannot be watched on this platform");
    using T = TestType;
    check_normalizer<T>(attnscope::Softmax{});
    check_normalizer<T>(attnscope::Softmax(0.25));
    // Five rows, and a list of equal keys that grows by doubling.
    constexpr int some = 5 + 16;
    check_normalizer<T>(attnscope::PointwiseNormalizer<attnscope::Exponential>{}, some);
    check_normalizer<T>(attnscope::PointwiseNormalizer<attnscope::Sigmoid>{}, some);
    check_normalizer<T>(attnscope::PointwiseNormalizer<attnscope::Softplus>{}, some);
    check_normalizer<T>(attnscope::PointwiseNormalizer<attnscope::Quadratic>{}, some);
}

TEMPLATE_TEST_CASE("row figures allocate nothing", "[allocation]", float, double, long double) {
    if (!watching()) ATTNSCOPE_SKIP("malloc cannot be watched on this platform");
    using T = TestType;
    using A = attnscope::Accumulator<T>;
    for (const std::vector<T>& row : rows<T>()) {
        CAPTURE(row.size());
        const RowIn<T> z(row);
        Buffers<T> b(row.size());
        CHECK(count_allocations([&] { keep(attnscope::log_sum_exp<T>(z, 0.5)); }) == 0);
        CHECK(count_allocations([&] { keep(attnscope::row_statistics<T>(z, 2)); }) == 0);
        const attnscope::MatrixView<T> matrix(row.data(), 1, static_cast<Index>(row.size()));
        attnscope::MatrixStatistics<A> of_rows;
        attnscope::matrix_statistics(matrix, of_rows);
        CHECK(count_allocations([&] { attnscope::matrix_statistics(matrix, of_rows, 2); }) == 0);
        CHECK(count_allocations([&] { keep(attnscope::centred_norm<T>(z, 2)); }) == 0);
        for (const double order : {0.0, 0.5, 1.0, 1.0 + 1e-9, 2.0, 1e300})
            CHECK(count_allocations([&] { keep(attnscope::renyi_entropy_nats<T>(z, order)); }) == 0);
        // Contiguous Eigen vectors go through the front doors without a copy.
        const Eigen::Map<const attnscope::Row<T>> vector(row.data(), static_cast<Index>(row.size()));
        CHECK(count_allocations([&] { keep(attnscope::entropy_nats(vector)); }) == 0);
        CHECK(count_allocations([&] { keep(attnscope::hill_number(vector, 2)); }) == 0);
        CHECK(count_allocations([&] { keep(attnscope::entropy_of_weights(vector)); }) == 0);
        attnscope::Softmax{}.apply<T>(z, RowOut<T>(b.p));
        CHECK(count_allocations([&] { keep(attnscope::diagonal_minus_rank_one_norm<T>(RowIn<T>(b.p))); }) == 0);
        attnscope::SplitMix64 generator(3);
        CHECK(count_allocations([&] { attnscope::random_direction<T>(z, generator, RowOut<T>(b.out)); }) == 0);

        const auto statistics = attnscope::row_statistics<T>(z);
        CHECK(count_allocations([&] {
                  keep(attnscope::corollary1_sharp<A>(statistics));
                  keep(attnscope::corollary1_published<A>(statistics, A(2)));
                  keep(attnscope::entropy_floor_range_bound<A>(statistics));
                  keep(attnscope::entropy_floor_norm_bound<A>(statistics, A(2)));
                  keep(attnscope::entropy_max_weight_bounds<A>(statistics));
              }) == 0);
    }
}

TEST_CASE("masks and logits of a query allocate nothing", "[allocation]") {
    if (!watching()) ATTNSCOPE_SKIP("malloc cannot be watched on this platform");
    const attnscope::Matrix<float> q = attnscope::Matrix<float>::Ones(3, 8),
                                   k = attnscope::Matrix<float>::Ones(20, 8);
    const attnscope::HeadView<float> head{attnscope::MatrixView<float>(q), attnscope::MatrixView<float>(k)};
    const auto mask = attnscope::Mask::sliding_window(4, 10).with_sinks(1).with_segments({0, 9});
    std::vector<float> z(20);
    CHECK(count_allocations([&] { attnscope::logits_of<float>(head, mask, 1, RowOut<float>(z)); }) == 0);
    CHECK(count_allocations([&] { keep(mask.visible(2, 20)); }) == 0);
}

TEST_CASE("meters and auditors of rows use their memory again", "[allocation]") {
    if (!watching()) ATTNSCOPE_SKIP("malloc cannot be watched on this platform");
    const std::vector<double> z = {1, 2, -1, 0.5, 3};
    attnscope::RowMeter meter;
    meter(attnscope::Softmax{}, RowIn<double>(z));
    CHECK(count_allocations([&] { meter(attnscope::Softmax(0.5), RowIn<double>(z)); }) == 0);

    attnscope::RowAuditor auditor({.steps = {0.125, 1}});
    const auto of_one_row = [&] {
        attnscope::Audit audit; // allocates for what it collects
        return count_allocations([&] { auditor(audit, attnscope::Softmax{}, RowIn<double>(z), {.delta = 3}); });
    };
    const int first = of_one_row(), second = of_one_row();
    CHECK(second == first - 5); // weights, direction, moved weights, and two of the cubic norm
    CHECK(of_one_row() == second);
}
