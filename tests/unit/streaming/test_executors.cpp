// What runs tasks and what holds heads: executors that change as they run, heads and masks in any container.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

using namespace attnscope;

namespace {

/// Counts what it ran: its call operator is not const.
class CountingPool {
public:
    template <class Task>
    void operator()(Index count, Task&& task) {
        ++calls_;
        for (Index i = count; i-- > 0;) task(i); // in an order of its own
    }
    Index calls() const { return calls_; }

private:
    Index calls_ = 0;
};

struct Small {
    Matrix<double> q = Matrix<double>::Random(20, 4), k = Matrix<double>::Random(30, 4),
                   v = Matrix<double>::Random(30, 3);
    HeadView<double> head{q, k, v};
    Mask mask = Mask::causal(10);
};

} // namespace

TEST_CASE("what an executor is", "[streaming]") {
    STATIC_REQUIRE(Executor<Sequential>);
    STATIC_REQUIRE(Executor<const Sequential&>);
    STATIC_REQUIRE(Executor<CountingPool>);
    STATIC_REQUIRE(Executor<CountingPool&>);
    STATIC_REQUIRE_FALSE(Executor<const CountingPool&>); // cannot be called
    STATIC_REQUIRE_FALSE(Executor<int>);
}

TEST_CASE("heads side by side may be scanned in any order of their tiles", "[streaming]") {
    SplitMix64 random(5);
    std::vector<Matrix<float>> q, k, v;
    std::vector<HeadView<float>> heads;
    for (const Index queries : {40, 9, 70, 3}) {
        for (auto* list : {&q, &k, &v}) {
            list->emplace_back(list == &q ? queries : 50, 6);
            random.fill_normal(
                std::span<float>(list->back().data(), static_cast<std::size_t>(list->back().size())));
        }
    }
    for (std::size_t i = 0; i < q.size(); ++i) heads.emplace_back(q[i], k[i], v[i]);
    const ScanOptions options{.query_tile = 8, .key_tile = 16, .output = true};
    // Every head is begun before any is done.
    const auto in_turns = [](Index count, const auto& task) {
        for (const Index start : {3, 0, 4, 2, 1})
            for (Index i = start; i < count; i += 5) task(i);
    };
    CountingPool backwards;
    const auto one = scan_heads(heads, Mask::none(), options),
               two = scan_heads(heads, Mask::none(), options, in_turns),
               three = scan_heads(heads, Mask::none(), options, backwards);
    for (std::size_t i = 0; i < heads.size(); ++i) {
        const auto alone = scan(heads[i], Mask::none(), options);
        for (const auto* found : {&one[i], &two[i], &three[i]}) {
            CHECK(found->rows == alone.rows);
            CHECK(found->output == alone.output);
        }
    }
}

TEST_CASE("an executor that is looked at runs each task once, and passes on what a task throws",
          "[streaming]") {
    STATIC_REQUIRE(Executor<ExecutorRef>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<ExecutorRef, int>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<ExecutorRef, const CountingPool&>);
    CountingPool pool;
    const Sequential sequential;
    auto copies = [](Index count, auto task) { // takes the task by value
        for (Index i = 0; i < count; ++i) task(i);
    };
    for (const ExecutorRef& executor :
         {ExecutorRef(pool), ExecutorRef(sequential), ExecutorRef(copies), ExecutorRef(ExecutorRef(pool))}) {
        std::vector<Index> seen;
        const ExecutorRef copy = executor;
        copy(5, [&seen](Index i) { seen.push_back(i); });
        std::sort(seen.begin(), seen.end());
        CHECK(seen == std::vector<Index>{0, 1, 2, 3, 4});
        Index last = -1;
        auto counts = [calls = 0, &last](Index) mutable {
            last = ++calls;
        }; // a task that changes what it holds
        copy(3, counts);
        CHECK(last == 3);
        copy(0, [](Index) { FAIL("no task was asked for"); });
        CHECK_THROWS_WITH(copy(4,
                               [](Index i) {
                                   if (i == 2) throw std::runtime_error("two");
                               }),
                          "two");
    }
    CHECK(pool.calls() == 8);
}

TEST_CASE("executors that are not const run every scan", "[streaming]") {
    const Small c;
    const auto& [q, k, v, head, mask] = c;
    const Index queries = head.queries(), keys = head.keys();
    CountingPool pool;
    Index before = 0;
    const auto ran = [&] {
        const bool more = pool.calls() > before;
        before = pool.calls();
        return more;
    };
    Index sequential_calls = 0; // a lambda that changes what it holds
    auto counting = [calls = Index(0), &sequential_calls](Index count, auto&& task) mutable {
        sequential_calls = ++calls;
        for (Index i = 0; i < count; ++i) task(i);
    };
    const TileOptions tiles{.query_tile = 6, .key_tile = 8};
    const ScanOptions options{.query_tile = 6, .key_tile = 8, .output = true};
    const auto source = ProductTiles<double>(head, pool);
    CHECK(ran());

    const auto right = scan(head, mask, options);
    CHECK(scan(head, mask, options, pool).rows == right.rows);
    CHECK(ran());
    CHECK(scan(head, mask, options, counting).rows == right.rows);
    CHECK(sequential_calls > 0);
    CHECK(scan(head, mask, options, CountingPool()).rows == right.rows);
    CHECK(scan_tiles<8, double>(queries, keys, source, head.v(), mask, options, pool).rows == right.rows);
    CHECK(ran());
    CHECK(scan_heads(std::vector{head, head}, mask, options, pool)[1].rows == right.rows);
    CHECK(ran());
    CHECK(scan_column_mass(head, right, mask, tiles, pool)
              .mass.isApprox(scan_column_mass(head, right, mask, tiles).mass, 0));
    CHECK(ran());

    Index rows = 0;
    scan_rows<double>(
        queries, keys, source, [&](Index, Index, RowOut<double>) { ++rows; }, mask, tiles, pool);
    CHECK(ran());
    scan_rows_of<double>(
        std::vector<Index>{3, 5}, keys, source, [&](Index, Index, RowOut<double>) { ++rows; }, mask, tiles,
        pool);
    CHECK(ran());
    CHECK(rows == queries + 2);
    CHECK(scan_divergence(head, head, mask, tiles, pool).rows[3].forward == 0);
    CHECK(ran());
    CHECK(scan_jacobian_norms(head, Softmax(), mask, tiles, pool).all == queries);
    CHECK(ran());
    CHECK(scan_value_moments(head, mask, tiles, pool).output.isApprox(right.output, 1e-12));
    CHECK(ran());
    CHECK(scan_histogram(head, mask, tiles, pool).all == queries);
    CHECK(ran());
    const std::vector<Index> counts{1, 3}, chosen{2, 7};
    Index visited = 0;
    const auto visit = [&](const auto&...) { ++visited; };
    scan_distances(head, counts, Softmax(), visit, mask, tiles, pool);
    CHECK(ran());
    scan_ranked_rows(chosen, head, gram_matrix(head.v()), Softmax(), visit, mask, tiles, pool);
    CHECK(ran());
    scan_distance_curves(head, 3, visit, mask, tiles, pool);
    CHECK(ran());
    CHECK(visited >= 2 * queries + 2);
}

TEST_CASE("heads and masks stand in vectors, arrays and spans", "[streaming]") {
    const Small c, other;
    const std::vector<HeadView<double>> list{c.head, other.head};
    std::array<HeadView<double>, 2> array{c.head, other.head};
    const std::array<Mask, 2> masks{c.mask, Mask()};
    const auto first = scan(c.head, c.mask), second = scan(other.head), masked = scan(other.head, c.mask);
    const auto check = [&](const auto& found, const auto& last) {
        REQUIRE(found.size() == 2);
        CHECK(found[0].rows == first.rows);
        CHECK(found[1].rows == last.rows);
    };
    check(scan_heads(list, masks), second);
    check(scan_heads(array, masks), second);
    check(scan_heads(std::span<const HeadView<double>>(list), std::vector<Mask>{c.mask, Mask()}), second);
    check(scan_heads(std::span(array), std::span<const Mask>(masks)), second);
    check(scan_heads(list, c.mask), masked);
    check(scan_heads(array, {c.mask}), masked);
    CHECK(scan_heads<4>(list)[1].rows == scan<4>(other.head).rows);
    CHECK(scan_heads(std::vector<HeadView<double>>()).empty());
    CHECK_THROWS_AS(scan_heads(list, std::vector<Mask>(3)), invalid_argument);
    CHECK_THROWS_AS(scan_heads(list, std::vector<Mask>()), invalid_argument);
}

TEST_CASE("what comes one a query, a head or a row stands in vectors", "[streaming]") {
    const Small c;
    const auto rows = scan(c.head, c.mask);
    std::vector<double> totals;
    std::vector<RowStatistics<double>> statistics;
    for (const auto& row : rows.rows) {
        statistics.push_back(row.statistics());
        totals.push_back(statistics.back().log_sum_exp());
    }
    const ProductTiles<double> source(c.head);
    const auto right = scan_column_mass(c.head, rows, c.mask).mass;
    const Eigen::VectorXd vector = Eigen::Map<const Eigen::VectorXd>(totals.data(), 20);
    CHECK(scan_column_mass<double>(20, 30, source, totals, c.mask).mass.isApprox(right, 0));
    CHECK(scan_column_mass<double>(20, 30, source, vector, c.mask).mass.isApprox(right, 0));
    CHECK(scan_column_mass<double>(20, 30, source, std::span<const double>(totals), c.mask)
              .mass.isApprox(right, 0));

    CHECK(background_growth(statistics).exponent ==
          background_growth(std::span<const RowStatistics<double>>(statistics)).exponent);
    CHECK(rank_collapse_factor(std::array<double, 2>{0.5, 0.25}) == 0.125);

    // One for each query head.
    const Matrix<double> q = Matrix<double>::Random(8, 3), k = Matrix<double>::Random(5, 3);
    const HeadGroup<double> group(HeadArray<double>::contiguous(q.data(), 2, 4, 3),
                                  HeadArray<double>::contiguous(k.data(), 1, 5, 3),
                                  HeadArray<double>::contiguous(k.data(), 1, 5, 3));
    const std::vector<Matrix<double>> ones(2, Matrix<double>::Ones(4, 3));
    CHECK(attend_backward(group, Softmax(), ones).q.size() == 2);

    const Row<double> diameters = visible_diameters<double>(c.head.v(), c.mask, 20);
    const std::vector<double> list(diameters.begin(), diameters.end());
    const Matrix<double> outputs = attend(c.head, Softmax(), c.mask).output;
    const CacheFormat format{CacheNumber::integer, 8};
    CHECK(cache_figures(c.head, format, c.mask, diameters, outputs).error ==
          cache_figures(c.head, format, c.mask, list, outputs).error);
    CHECK(fewest_cache_bits(c.head, CacheScale::token, c.mask, list, outputs, 0.1, 0.9).measured <= 17);
    const Matrix<double> changed = c.k;
    for_each_key_perturbation(c.head, changed, c.mask, list,
                              [](Index, const Perturbation<double>& row) { CHECK(row.range == 0); });
    SplitMix64 random(1);
    const std::vector<double> weights{0.5, 0.5}, radii{0.5, 1};
    CHECK(simulate_separable_fraction(weights, SphericalModel(), radii, 10, random).size() == 2);
}
