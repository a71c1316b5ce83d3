// Parts of a scan as bytes of a state file, and back: nothing is lost or rounded. Not in the umbrella.
#pragma once

#include <attnscope/io/state_bytes.hpp>
#include <attnscope/streaming/block_scan.hpp>
#include <attnscope/streaming/value_state.hpp>
#include <attnscope/streaming/weight_histogram.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Kinds of content, for `StateLabel`: those of this header. docs/states.md has all of them.
inline constexpr std::uint32_t block_state_kind = 2, column_state_kind = 3, histogram_state_kind = 4;

namespace detail {

/// Numbers that are stored as they are: long double differs between machines.
template <class T>
concept StoredReal = std::same_as<T, float> || std::same_as<T, double>;

template <StoredReal T, Index K>
inline constexpr std::size_t row_state_bytes =
    9 * 8 + sizeof(T) + static_cast<std::size_t>(K) * (sizeof(T) + 8);

/// What the types promise, so that none is read as another.
template <StoredReal T>
void write_form(StateWriter& out, Index leaders) {
    out.number(sizeof(T), 1);
    out.index(leaders);
}
template <StoredReal T>
void read_form(StateReader& in, Index leaders) {
    if (const std::uint64_t size = in.number(1); size != sizeof(T))
        in.fail("logits must be of " + std::to_string(sizeof(T)) + " bytes, are of " + std::to_string(size));
    if (const std::int64_t count = in.index(); count != leaders)
        in.fail("a row must have " + std::to_string(leaders) + " leading keys, has " + std::to_string(count));
}

inline void write_row(StateWriter& out, const Row<double>& row) { out.reals(row); }
inline Row<double> read_row(StateReader& in, std::optional<Index> size = {}) {
    const std::vector<double> list =
        in.reals(size ? std::optional(static_cast<std::size_t>(*size)) : std::nullopt);
    return Eigen::Map<const Row<double>>(list.data(), static_cast<Index>(list.size()));
}

} // namespace detail

/// Writes the state of a row.
/// Cost. 76 + 12 K bytes of float, 80 + 16 K of double.
template <detail::StoredReal T, Index K>
void write(StateWriter& out, const RowState<T, K>& state) {
    const auto parts = state.parts();
    const std::array<Index, 4> counts{parts.finite, parts.nan, parts.infinite, parts.infinite_key};
    out.numbers(std::span<const double>(parts.sums));
    out.numbers(std::span<const Index>(counts));
    out.real(parts.smallest);
    out.numbers(std::span<const T>(parts.logits));
    out.numbers(std::span<const Index>(parts.keys));
}

/// Reads the state of a row.
/// Throws. `io_error` for one that no row has: see `RowState::of`.
template <detail::StoredReal T, Index K = 8>
RowState<T, K> read_row_state(StateReader& in) {
    typename RowState<T, K>::Parts parts;
    std::array<Index, 4> counts;
    in.numbers(std::span<double>(parts.sums));
    in.numbers(std::span<Index>(counts));
    in.numbers(std::span(&parts.smallest, 1));
    in.numbers(std::span<T>(parts.logits));
    in.numbers(std::span<Index>(parts.keys));
    parts.finite = counts[0];
    parts.nan = counts[1];
    parts.infinite = counts[2];
    parts.infinite_key = counts[3];
    try {
        return RowState<T, K>::of(parts);
    } catch (const invalid_argument& error) {
        in.fail(error.what());
    }
}

/// Writes mass, scatter and mean.
inline void write(StateWriter& out, const ValueState<double>& state) {
    out.real(state.mass());
    out.real(state.scatter());
    out.reals(state.mean());
}

/// Reads them, the mean into storage of the caller, whose length is that of the vectors.
/// Throws. `io_error` for another length, and for a mass or scatter below 0.
inline ValueState<double> read_value_state(StateReader& in, std::span<double> mean) {
    const double mass = in.real(), scatter = in.real();
    if (mass < 0 || scatter < 0) in.fail("mass and scatter must be >= 0");
    const std::vector<double> list = in.reals(mean.size());
    std::copy(list.begin(), list.end(), mean.begin());
    return {mean, mass, scatter};
}

/// Writes the counts of a histogram.
inline void write(StateWriter& out, const WeightHistogram& histogram) {
    for (const std::uint64_t count : histogram.count) out.number(count);
    out.number(histogram.left_out);
}

/// Reads them; the number of pairs is their sum.
/// Throws. `io_error` where that overflows.
inline WeightHistogram read_histogram(StateReader& in) {
    WeightHistogram histogram;
    for (std::uint64_t& count : histogram.count) {
        count = in.number();
        if (histogram.pairs + count < count) in.fail("there are more than 2^64 pairs");
        histogram.pairs += count;
    }
    histogram.left_out = in.number();
    return histogram;
}

/// Writes what keys collect.
/// Cost. 16 bytes a key.
inline void write(StateWriter& out, const ColumnSums& sums) {
    out.index(sums.first_key);
    out.real(sums.rows_in_all);
    detail::write_row(out, sums.weight);
    detail::write_row(out, sums.seen);
}

/// Reads what keys collect.
/// Throws. `io_error` for numbers of rows that are none, and rows of different lengths.
inline ColumnSums read_column_sums(StateReader& in) {
    ColumnSums sums;
    sums.first_key = static_cast<Index>(in.count());
    sums.rows_in_all = in.real();
    sums.weight = detail::read_row(in);
    sums.seen = detail::read_row(in, sums.weight.size());
    const auto is_count = [](double x) { return x >= 0 && x <= 0x1p53 && x == std::floor(x); };
    if (!is_count(sums.rows_in_all) || !std::all_of(sums.seen.begin(), sums.seen.end(), is_count))
        in.fail("a number of queries must be a whole one");
    return sums;
}

/// Writes a block of a head: its place, the states of its rows and the sums of its values.
/// Cost. Of each query, those of a `RowState` and 8 d_v bytes.
template <detail::StoredReal T, Index K>
void write(StateWriter& out, const BlockScan<T, K>& block) {
    detail::write_form<T>(out, K);
    for (const Index number :
         {block.place().query, block.place().key, block.place().keys, block.keys(), block.queries()})
        out.index(number);
    out.reserve(block.rows().size() * detail::row_state_bytes<T, K> +
                static_cast<std::size_t>(block.sums().size()) * sizeof(double) + sizeof(std::int64_t));
    for (const RowState<T, K>& row : block.rows()) write(out, row);
    out.index(block.sums().cols());
    out.numbers(std::span<const double>(block.sums().data(), static_cast<std::size_t>(block.sums().size())));
}

/// Reads a block of a head.
/// Throws. `io_error` for logits of another type, another K, rows that are none, and a block beyond its head.
template <detail::StoredReal T, Index K = 8>
BlockScan<T, K> read_block_scan(StateReader& in) {
    detail::read_form<T>(in, K);
    BlockPlace place;
    place.query = static_cast<Index>(in.count());
    place.key = static_cast<Index>(in.count());
    place.keys = static_cast<Index>(in.count());
    const Index keys = static_cast<Index>(in.count()), queries = static_cast<Index>(in.count());
    if (keys > place.keys - place.key) in.fail("the block goes beyond the keys of its head");
    if (static_cast<std::size_t>(queries) > in.left() / detail::row_state_bytes<T, K>)
        in.fail(std::to_string(queries) + " rows are longer than the rest");
    std::vector<RowState<T, K>> rows;
    rows.reserve(static_cast<std::size_t>(queries));
    for (Index i = 0; i < queries; ++i) {
        const RowState<T, K>& row = rows.emplace_back(read_row_state<T, K>(in));
        const auto inside = [&](Index key) { return key >= place.key && key < place.key + keys; };
        bool fits = row.infinite_keys() == 0 || inside(row.parts().infinite_key);
        for (const auto& leader : row.leaders()) fits = fits && inside(leader.key);
        const Index left = keys - std::min(keys, row.nan_keys()); // no sum of large counts
        if (!fits || row.nan_keys() > keys || row.infinite_keys() > left ||
            row.finite_keys() > left - row.infinite_keys())
            in.fail("a row has keys that are not in the block");
    }
    const Index width = static_cast<Index>(in.count(Index(1) << 24));
    if (queries > 0 &&
        static_cast<std::size_t>(width) > in.left() / sizeof(double) / static_cast<std::size_t>(queries))
        in.fail("sums of " + std::to_string(width) + " values a row are longer than the rest");
    Matrix<double> sums(width > 0 ? queries : 0, width);
    in.numbers(std::span(sums.data(), static_cast<std::size_t>(sums.size())));
    return {place, keys, std::move(rows), std::move(sums)};
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
