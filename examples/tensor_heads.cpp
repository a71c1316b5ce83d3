// Heads in a rank-4 Eigen tensor [batch, heads, n, d]: attention of all of them, then what each selection
// keeps.
#include <attnscope/attention/tensor.hpp>
#include <attnscope/attnscope.hpp>

#include <cstdio>

int main() {
    using Tensor = Eigen::Tensor<float, 4, Eigen::RowMajor>;
    const Eigen::Index batch = 2, heads = 4, n = 64, d = 16;
    Tensor q(batch, heads, n, d), k(batch, 2, n, d), v(batch, 2, n, d); // two query heads share a key head
    attnscope::SplitMix64 random(1);
    for (Tensor* tensor : {&q, &k, &v})
        random.fill_normal(std::span<float>(tensor->data(), static_cast<std::size_t>(tensor->size())));

    // The second batch entry is only 40 tokens long.
    const attnscope::Mask masks[] = {attnscope::Mask::causal(), attnscope::Mask::causal().with_length(40)};
    const auto attention = attnscope::attend(q, k, v, attnscope::Softmax(0.5), masks, {.weights = true});

    const attnscope::TensorHeads<float> weights(attention.weights), values(v); // views, no copies
    std::printf("batch head  entropy of the last query  mass of its top 5  distance to the rest\n");
    for (Eigen::Index b = 0; b < batch; ++b)
        for (Eigen::Index h = 0; h < heads; ++h) {
            const Eigen::Index visible = masks[b].visible(n - 1, n).count();
            const auto p = weights.matrix(b, h).row(n - 1).first(static_cast<std::size_t>(visible));
            const auto seen = values.matrix(b, h / 2).map().topRows(visible);
            const Eigen::Map<const attnscope::Row<float>> row(p.data(), 1, visible);
            const auto top = attnscope::select_top(row, seen, 5);
            std::printf("%5d %4d %26.4f %18.4f %21.4f\n", int(b), int(h), attnscope::entropy_of_weights(row),
                        top.mass(), attnscope::selection_distance(top));
        }
}
