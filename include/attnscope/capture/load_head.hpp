// Heads of a capture as what an analysis takes: vectors, or rows of logits with scale, bias and masks applied. Needs
// attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/analysis/stored_weights.hpp>
#include <attnscope/attention/logits.hpp>
#include <attnscope/capture/row_tally.hpp>

#include <tuple>

namespace attnscope {
inline namespace v0_2 {

/// What the logits of a head are made of.
template <class T>
struct HeadVectors {
    Matrix<T> q, k;
    std::optional<Matrix<T>> v;
    T scale = 1;
};

/// One head, ready to be analysed.
struct HeadRows {
    Matrix<double> logits;                     ///< [queries, keys] before the temperature; -inf where masked
    std::optional<Matrix<double>> values;      ///< [keys, d_v]
    std::optional<Matrix<double>> weights;     ///< as stored
    std::optional<StoredScalar> stored_scalar; ///< of weights, if the capture has nothing else
    std::vector<double> delta; ///< |q_i| max_j |k_j| |scale| over visible keys; empty without q, k
    Mask mask;                 ///< none where stored weights lie on keys that it hides
    RowTally tally;
};

namespace detail {
namespace head_loading {

using io::Dtype;

inline constexpr double masked = -std::numeric_limits<double>::infinity();

/// The head of a source with as many heads as the queries, or fewer that are shared.
template <class T = double>
Matrix<T> shared_head(const Capture& capture, const HeadSource& source, const HeadPlace& place) {
    return source.head<T>({place.batch, place.layer, place.head / (capture.heads / source.heads)});
}

inline StoredScalar stored_scalar(Dtype dtype) {
    return dtype == Dtype::f16    ? StoredScalar::float16
           : dtype == Dtype::bf16 ? StoredScalar::bfloat16
           : dtype == Dtype::f32  ? StoredScalar::float32
                                  : StoredScalar::float64;
}

/// Finite masks of a row, by the limit that the options or the stored type gives.
inline void mask_row(const Capture& capture, Dtype dtype, RowOut<double> row, RowTally& tally) {
    double limit = finite_mask_limit<double>();
    if (dtype == Dtype::f32) limit = finite_mask_limit<float>();
    if (dtype == Dtype::f16) limit = finite_mask_limit<Eigen::half>();
    if (dtype == Dtype::bf16) limit = finite_mask_limit<Eigen::bfloat16>();
    limit = capture.options.masked_below.value_or(limit);
    double least = std::numeric_limits<double>::infinity(), most = -least;
    for (const double x : row)
        if (x <= limit && x != masked) least = std::min(least, x), most = std::max(most, x);
    const FiniteMasks found = mask_at_or_below<double>(row, limit);
    tally.masks += found.masked;
    tally.unmasked_rows += found.spared;
    if (found.masked == 0) return;
    tally.least_mask = std::min(tally.least_mask, least);
    tally.most_mask = std::max(tally.most_mask, most);
}

/// Stored weights as logits, which softmax knows up to a constant: log p; and what their rows are like.
inline void take_weights(const Capture& capture, const HeadPlace& place, HeadRows& rows) {
    const Matrix<double>& p = rows.weights.emplace(capture.weights->head(place));
    const StoredScalar scalar = narrowest_scalar(MatrixView<double>(p), stored_scalar(capture.weights->dtype));
    rows.stored_scalar = scalar;
    rows.logits = p.array().log();
    for (Index i = 0; i < capture.queries; ++i) {
        const StoredRow row = stored_row({p.data() + i * capture.keys, static_cast<std::size_t>(capture.keys)},
                                         rows.mask.visible(i, capture.keys), scalar);
        RowTally& tally = rows.tally;
        tally.negative += row.negative;
        tally.negative_rows += row.negative > 0;
        // NaN, and rows that hold nothing, have no sum to speak of.
        if (!std::isfinite(row.sum) || (p.row(i).array() == 0).all()) continue;
        tally.sums.push_back(row.sum);
        if (!row.sums_to_one) ++tally.not_one;
        if (row.sums_to_one && row.sum != 1) ++tally.rounded, tally.rounded_type = name_of(scalar);
        if (row.hides_weight) ++tally.hidden_rows, tally.most_hidden = std::max(tally.most_hidden, row.hidden);
    }
    if (rows.tally.hidden_rows > 0 && !capture.options.normalise_weights) rows.mask = Mask::none();
}

inline void check_place(std::string_view function, const Capture& capture, const HeadPlace& place) {
    capture.check();
    for (const auto& [number, count, rule] :
         {std::tuple{place.batch, capture.batches, "the batch must be one of the capture"},
          std::tuple{place.layer, capture.layers, "the layer must be one of the capture"},
          std::tuple{place.head, capture.heads, "the head must be one of the capture"}})
        require(number >= 0 && number < count, function, rule, number);
}

} // namespace head_loading
} // namespace detail

/// Reads a head that has q and k, as double or float.
/// Throws. `invalid_argument` for a head that is not there and for a capture without q and k; what reading throws.
template <class T = double>
HeadVectors<T> load_vectors(const Capture& capture, const HeadPlace& place) {
    detail::head_loading::check_place("load_vectors", capture, place);
    detail::require(capture.kind == Capture::Kind::queries_and_keys, "load_vectors",
                    "the capture must have q and k");
    HeadVectors<T> vectors{capture.q->head<T>(place),
                           detail::head_loading::shared_head<T>(capture, *capture.k, place),
                           {},
                           static_cast<T>(capture.scale(place.layer))};
    if (capture.v) vectors.v = detail::head_loading::shared_head<T>(capture, *capture.v, place);
    return vectors;
}

/// Reads a head and applies scale, bias and masks. Stored weights are taken whole, unless they are to be normalised: then
/// keys that the mask hides are left out.
/// Cost. Memory of queries x keys doubles for the logits, and for stored weights.
/// Throws. `invalid_argument` for a head that is not there; what reading throws.
inline HeadRows load_head(const Capture& capture, const HeadPlace& place) {
    detail::head_loading::check_place("load_head", capture, place);
    HeadRows rows;
    rows.mask = capture.mask(place);
    if (capture.v) rows.values = detail::head_loading::shared_head(capture, *capture.v, place);
    Matrix<double> bias;
    switch (capture.kind) {
    case Capture::Kind::queries_and_keys: {
        const auto [q, k, v, factor] = load_vectors(capture, place);
        rows.logits.noalias() = factor * q * k.transpose();
        Eigen::VectorXd key_norms(k.rows());
        for (Index j = 0; j < k.rows(); ++j) key_norms[j] = k.row(j).stableNorm(); // its square could underflow
        for (Index i = 0; i < q.rows(); ++i) {
            double longest = 0;
            rows.mask.visible(i, capture.keys).for_each([&](Index j) {
                longest = std::max(longest, key_norms[j]);
            });
            rows.delta.push_back(q.row(i).stableNorm() * longest * std::abs(factor));
        }
        if (capture.weights) rows.weights = capture.weights->head(place);
        if (capture.bias) {
            const HeadSource& source = *capture.bias;
            bias = source.head({source.batches == 1 ? 0 : place.batch, source.layers == 1 ? 0 : place.layer,
                                source.heads == 1 ? 0 : place.head});
            rows.delta.clear(); // the bias is no part of |q| |k|
        }
        break;
    }
    case Capture::Kind::logits:
        rows.logits = capture.logits->head(place);
        break;
    case Capture::Kind::weights:
        detail::head_loading::take_weights(capture, place, rows);
        break;
    }

    RowTally& tally = rows.tally;
    const bool holds_masks = capture.kind == Capture::Kind::logits || capture.bias;
    const double temperature = capture.layer(place.layer).temperature.value_or(1);
    bool causal = capture.kind != Capture::Kind::queries_and_keys || capture.bias;
    Index hidden = 0;
    for (Index i = 0; i < capture.queries; ++i) {
        const KeyRanges visible = rows.mask.visible(i, capture.keys);
        const bool padding = capture.is_padding(place, i);
        const RowOut<double> row(rows.logits.data() + i * capture.keys, static_cast<std::size_t>(capture.keys));
        const auto hide = [&](RowOut<double> values) {
            const auto fill = [&](Index first, Index last) {
                std::fill(values.begin() + first, values.begin() + last, detail::head_loading::masked);
            };
            const KeyRange &lead = visible.lead, &body = visible.body;
            if (padding) return fill(0, capture.keys);
            fill(0, lead.empty() ? body.begin : lead.begin);
            if (!lead.empty()) fill(lead.end, body.begin); // of two ranges none is empty
            fill(body.end, capture.keys);
        };
        hide(row);
        if (capture.bias) {
            const RowOut<double> own(bias.data() + i * capture.keys, row.size());
            hide(own);
            detail::head_loading::mask_row(capture, capture.bias->dtype, own, tally);
            for (std::size_t j = 0; j < row.size(); ++j)
                row[j] =
                    own[j] == detail::head_loading::masked ? detail::head_loading::masked : row[j] + own[j];
        } else if (capture.kind == Capture::Kind::logits)
            detail::head_loading::mask_row(capture, capture.logits->dtype, row, tally);
        double least = std::numeric_limits<double>::infinity(), most = -least;
        Index seen = 0;
        for (std::size_t j = 0; j < row.size(); ++j) {
            causal = causal && (row[j] == detail::head_loading::masked) ==
                                   (static_cast<Index>(j) > i + capture.keys - capture.queries);
            if (row[j] == detail::head_loading::masked) {
                ++hidden;
                continue;
            }
            ++seen;
            least = std::min(least, row[j]);
            most = std::max(most, row[j]);
        }
        if (!holds_masks || seen < 2) continue;
        ++tally.rows;
        tally.wide_rows += (most - least) / temperature > RowTally::wide_nats;
    }
    ++tally.heads;
    tally.masked_causally += causal && hidden > 0;
    return rows;
}

} // namespace v0_2
} // namespace attnscope
