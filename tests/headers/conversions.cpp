// The main doors in float and double, of heads in half too: all headers and what they are made of convert no number
// without saying so. Compiled, not run.
#include <attnscope/detail/simd/group.hpp>

// g++ takes the size of one array in this header, a positive constant of type int, for a conversion; no other header is exempt,
// and neither is what it includes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
#include <attnscope/detail/simd/exp.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "all_headers.hpp" // includes every header

namespace {

using namespace attnscope;

template <Real T>
void rows(const std::vector<T>& z, const std::vector<T>& other) {
    const auto statistics = row_statistics(z, 2.0);
    (void)statistics.logit_variance(1);
    (void)(renyi_entropy_nats(z, 1.5), hill_number(z, 2.0), log_sum_exp(z));
    (void)(row_divergence(z, other), entropy_gradient(z), weight_temperature_derivative(z));
    (void)(entropy_temperature_derivative(statistics), row_growth(statistics, 5000));
    (void)(planned_temperature(z, {}, Aim::entropy, 1.0), softmax_spectral_bracket(statistics));
    for (const std::string_view name : {"softmax", "entmax", "softpick"}) {
        const AnyNormalizer normalizer = make_normalizer(std::string(name));
        const auto p = weights(normalizer, z);
        (void)jacobian_norms(normalizer, std::span<const T>(z), std::span<const T>(p.data(), z.size()));
    }
    (void)weights(softcap(50) | Softmax() | top_p(0.9), z);
    WeightHistogram histogram;
    add_to_histogram<T>(histogram, z);
}

template <Real T, HeadLike H>
void heads(const H& head, const Matrix<T>& d_output) {
    const Mask mask = Mask::causal();
    const auto scanned = scan(head, mask, {.output = true});
    (void)scanned.rows[0].statistics().entropy_nats();
    (void)(scan_column_mass(head, scanned, mask), scan_renyi_entropy(head, 1.5), scan_top_mass(head, {2}));
    (void)(scan_divergence(head, head), scan_jacobian_norms(head, Softmax()), scan_histogram(head));
    (void)(scan_value_moments(head), attend(head, Softmax(), mask),
           attend_backward(head, Softmax(), d_output, mask));
    const std::vector<Index> counts = {1, 2};
    SelectionScanOptions selection;
    selection.geometry = true;
    (void)(scan_selection(head, evict(HeavyHitters(2), head, {.budget = 4}), mask, selection),
           scan_selection(head, TopKeys(2), mask), scan_selection(head, TopMass(0.5), mask));
    for (const SelectionPolicy& policy :
         selection_policies("snapkv,tova,window,quest,certified,hindsight,random", counts))
        (void)summarize(scan_policy(policy, head, mask));
    scan_distances(head, counts, Softmax(), [](Index, std::span<const Index>, auto) {});
    scan_distance_curves(head, 2, [](Index, std::span<const Index>, const auto&) {});
}

template <Real T>
void all(const Matrix<T>& m, const std::vector<T>& z) {
    const HeadView<T> head(m, m, m);
    rows<T>(z, z);
    heads<T>(head, m);
    (void)(fewest_cache_bits(head, CacheScale::channel, Mask(), z, MatrixView<T>(m), 0.1, 0.9),
           head_curves(head, {}));
    const std::vector<CacheFormat> formats = {cache_format("q4_0"), rotated(kivi_keys())};
    (void)(through_cache(head, formats[0], formats[1]), cache_quanta(m, formats[0]),
           cache_error_limits(m, formats[1]), measure_cache(head, Mask(), formats[0], formats[1], {.top = 1}),
           cache_choices(head, Mask(), formats, formats));
}

} // namespace

void conversions(const Matrix<float>& narrow, const Matrix<double>& wide, const Matrix<Eigen::half>& half) {
    all<float>(narrow, {1.0F});
    all<double>(wide, {1.0});
    heads<float>(HeadView(half, half, half), narrow);
    io::StateWriter state;
    io::write(state, analyze(narrow, narrow, narrow, {.counts = {1}}));
    io::StateReader reader("state", state.bytes());
    (void)(io::read_head_analysis(reader), io::KeySetsFile("sets").sets(0, 0, 1, Mask()));
}
