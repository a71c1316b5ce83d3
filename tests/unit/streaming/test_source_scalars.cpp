// Scans know the scalar of a source that takes tiles of one scalar only.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <functional>

namespace {

using namespace attnscope;

template <class T>
struct Made {
    Matrix<T> q = numbers(12, 4, 1), k = numbers(9, 4, 2), z = numbers(12, 9, 3);
    static Matrix<T> numbers(Index rows, Index cols, std::uint64_t seed) {
        SplitMix64 random(seed);
        return Matrix<T>::NullaryExpr(rows, cols, [&] { return T(2 * random.normal()); });
    }
};

const auto generic = [](Index, Index, auto tile) { tile.setZero(); };

template <class Source>
concept NeedsNoScalar = requires(const Source& source) { scan_renyi_entropy(3, 3, source, 1.5); };

/// Every scan of a source without a word about T gives what it gives for `Named`.
template <class T, class Source>
void check_doors(const Source& source) {
    const Index n = 12, keys = 9;
    const Mask mask = Mask::causal();
    const TileOptions options{.key_tile = 4};
    const auto scanned = scan_tiles(n, keys, source, mask);
    static_assert(std::same_as<decltype(scanned), const Scan<T, 8>>);
    CHECK(scanned.rows == scan_tiles<8, T>(n, keys, source, {}, mask).rows);
    CHECK(scan_tiles<2>(n, keys, source).rows == scan_tiles<2, T>(n, keys, source).rows);
    CHECK_THROWS_AS(scan_tiles(n, keys, source, mask, {.output = true}), invalid_argument);
    std::vector<Accumulator<T>> totals;
    for (const auto& row : scanned.rows) totals.push_back(row.statistics().log_sum_exp());
    CHECK((scan_column_mass(n, keys, source, totals, mask, options).mass ==
           scan_column_mass<T>(n, keys, source, totals, mask, options).mass)
              .all());
    CHECK((scan_renyi_entropy(n, keys, source, 1.5, mask, options).entropy_nats ==
           scan_renyi_entropy<T>(n, keys, source, 1.5, mask, options).entropy_nats)
              .all());
    CHECK(scan_top_mass(n, keys, source, {2}, mask, options).mass ==
          scan_top_mass<T>(n, keys, source, {2}, mask, options).mass);
    CHECK(scan_histogram(n, keys, source, mask).histogram ==
          scan_histogram<T>(n, keys, source, mask).histogram);
    const auto norms = scan_jacobian_norms(n, keys, source, Softmax(), mask);
    static_assert(std::same_as<decltype(norms), const JacobianScan<T>>);
    CHECK(norms.rows[11].spectral.value ==
          scan_jacobian_norms<T>(n, keys, source, Softmax(), mask).rows[11].spectral.value);
    CHECK(scan_divergence(n, keys, source, source, mask).rows[5].forward == 0);
    CHECK(scan_divergence(n, keys, source, generic, mask).rows[5].forward ==
          scan_divergence<T>(n, keys, source, generic, mask).rows[5].forward);
    Index seen = 0;
    const auto visit = [&](Index, Index, RowOut<T> z) { seen += Index(z.size()); };
    scan_rows(n, keys, source, visit, mask);
    const std::vector<Index> chosen = {0, 5};
    scan_rows_of(chosen, keys, source, visit, mask);
    CHECK(seen == 45 + 3 * 9 + 1 + 6);
    CHECK((analyze_tiles(n, keys, source, {.mask = mask}).rows.entropy_nats ==
           analyze_tiles<T>(n, keys, source, {}, {.mask = mask}).rows.entropy_nats)
              .all());
}

} // namespace

TEMPLATE_TEST_CASE("scans deduce the scalar of a source of logits", "[streaming][source]", float, double) {
    using T = TestType;
    const Made<T> made;
    const HeadView<T> head(made.q, made.k);
    check_doors<T>(ProductTiles(head));
    check_doors<T>(mapped_tiles(ProductTiles(head), softcap(5)));
    check_doors<T>(
        biased_tiles(ProductTiles(head), [](Index query, Index key) { return 0.1 * double(key - query); }));
    const auto own = [&](Index query, Index key, TileOut<T> tile) {
        tile = made.z.block(query, key, tile.rows(), tile.cols());
    };
    check_doors<T>(own);
    check_doors<T>(std::function<void(Index, Index, TileOut<T>)>(own));
}

TEST_CASE("a source that takes every scalar says none", "[streaming][source]") {
    STATIC_REQUIRE(NeedsNoScalar<ProductTiles<float>>);
    STATIC_REQUIRE_FALSE(NeedsNoScalar<decltype(generic)>);
    STATIC_REQUIRE_FALSE(NeedsNoScalar<MappedTiles<std::remove_const_t<decltype(generic)>, Softcap>>);
    CHECK(scan_renyi_entropy<float>(3, 4, generic, 1.5).entropy_nats[2] == Catch::Approx(std::log(4.0)));
    CHECK(scan_tiles<8, long double>(3, 4, generic).rows[2].statistics().visible == 4);
}
