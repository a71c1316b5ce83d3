// Heads to scan, what a scan of them must give, and the floor under it.
#pragma once

#include "harness.hpp"

namespace bench {

using attnscope::HeadView;
using attnscope::Mask;

/// Gaussian queries, keys and values of some heads of one length.
struct Heads {
    Index count, length, width;
    Matrix<float> q, k, v; ///< [count length, width]

    Heads(Index heads, Index n, Index d) : count(heads), length(n), width(d) {
        attnscope::SplitMix64 random(1);
        for (Matrix<float>* m : {&q, &k, &v}) *m = normal_matrix<float>(heads * n, d, 1, random);
    }
    HeadView<float> operator[](Index head) const {
        const auto part = [&](const Matrix<float>& m) {
            return attnscope::MatrixView<float>(m.data() + head * length * width, length, width);
        };
        return {part(q), part(k), part(v)};
    }
    std::vector<HeadView<float>> views() const {
        std::vector<HeadView<float>> all;
        for (Index i = 0; i < count; ++i) all.push_back((*this)[i]);
        return all;
    }
    double pairs(const Mask& mask) const {
        double sum = 0;
        for (Index i = 0; i < length; ++i) sum += static_cast<double>(mask.visible(i, length).count());
        return sum * static_cast<double>(count);
    }
};

/// Figures and outputs of some rows of every head against long double.
inline void verify_scan(const Heads& heads, const Mask& mask,
                        const std::vector<attnscope::Scan<float, 8>>& found, bool output,
                        const std::string& who) {
    using L = long double;
    for (Index h = 0; h < heads.count; ++h)
        for (const Index query : {Index(0), heads.length / 3, heads.length - 1}) {
            const auto head = heads[h];
            std::vector<std::pair<L, Index>> z;
            mask.visible(query, heads.length).for_each([&](Index key) {
                L sum = 0;
                for (Index c = 0; c < heads.width; ++c)
                    sum += L(head.q().map()(query, c)) * L(head.k().map()(key, c));
                z.emplace_back(sum * L(head.scale()), key);
            });
            std::sort(z.begin(), z.end(), std::greater<>());
            L sum = 0, weighted = 0, squares = 0;
            std::vector<L> o(static_cast<std::size_t>(heads.width));
            for (const auto& [logit, key] : z) {
                const L e = std::exp(logit - z[0].first);
                sum += e, weighted += e * (z[0].first - logit), squares += e * e;
                for (std::size_t c = 0; c < o.size(); ++c) o[c] += e * L(head.v().map()(key, Index(c)));
            }
            const auto& row = found[static_cast<std::size_t>(h)].rows[static_cast<std::size_t>(query)];
            // Logits of up to 7 are sums of `width` products in float.
            const L error = std::numeric_limits<float>::epsilon() * static_cast<L>(heads.width + 64);
            verify_close(row.statistics().log_sum_exp(), z[0].first + std::log(sum), error, error, who,
                         "log-sum-exp");
            verify_close(row.statistics().entropy_nats(), std::log(sum) + weighted / sum, error, error, who,
                         "entropy");
            verify_close(row.statistics().power_sum_2(), squares / (sum * sum), 4 * error, 0, who,
                         "squared weights");
            verify(row.leading_key(0) == z[0].second, who, "another key leads");
            for (std::size_t c = 0; output && c < o.size(); ++c)
                verify_close(found[static_cast<std::size_t>(h)].output(query, static_cast<Index>(c)),
                             o[c] / sum, 0, 1e-4L, who, "output");
        }
}

/// The floor: the bare product of causal tiles, and one exponential for each visible logit. The return value
/// depends on all of it.
inline float product_and_exponential(const Heads& heads, const Mask& mask) {
    using P = attnscope::packets::Packet<float>;
    constexpr Index rows = 64, cols = 128;
    Matrix<float> tile(rows, cols);
    float sum = 0;
    for (Index h = 0; h < heads.count; ++h) {
        const auto head = heads[h];
        for (Index query = 0; query < heads.length; query += rows)
            for (Index key = 0; key < heads.length; key += cols) {
                const Index height = std::min(rows, heads.length - query),
                            width = std::min(cols, heads.length - key);
                const auto seen = [&](Index i) { // of this tile's keys
                    const auto body = mask.visible(query + i, heads.length).body;
                    return attnscope::KeyRange{std::clamp(body.begin, key, key + width),
                                               std::clamp(body.end, key, key + width)};
                };
                if (seen(0).empty() && seen(height - 1).empty()) continue;
                auto part = tile.topLeftCorner(height, width);
                part.noalias() = head.q().map().middleRows(query, height) *
                                 head.k().map().middleRows(key, width).transpose();
                for (Index i = 0; i < height; ++i) {
                    const auto range = seen(i);
                    float* const z = tile.data() + i * cols + (range.begin - key);
                    attnscope::packets::for_each_lane<float>(range.size(), [&](const auto& lane) {
                        // Arguments of any sign: the time is the same.
                        lane.store(z, exp_nonpositive(lane(z, -1.0F)));
                    });
                }
                sum += reduce_add(P::load(tile.data()));
            }
    }
    return sum;
}

} // namespace bench
