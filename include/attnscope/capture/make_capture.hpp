// Heads that an engine has in memory, as a capture. Needs attnscope::io and attnscope::fmt.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/capture/capture.hpp>

#include <memory>

namespace attnscope {
inline namespace v0_2 {
namespace detail {
namespace memory_capture {

enum class Part { q, k, v };

template <InputScalar T>
auto part_of(const HeadGroup<T>& group, Part part, Index head) {
    const auto view = group[part == Part::q ? head : head * (group.heads() / group.key_heads())];
    return part == Part::q ? view.q() : part == Part::k ? view.k() : view.v();
}

template <InputScalar T>
using Layers = std::shared_ptr<const std::vector<HeadGroup<T>>>;

/// Elements first ... first + count - 1 of [layers, heads, rows, cols].
template <class R, InputScalar T>
std::vector<R> elements(const std::vector<HeadGroup<T>>& layers, Part part, const HeadSource& shape,
                        Index first, Index count) {
    std::vector<R> numbers;
    numbers.reserve(static_cast<std::size_t>(count));
    [[maybe_unused]] std::vector<ComputeScalar<T>> room; // of a row that is widened
    while (std::ssize(numbers) < count) {
        const Index at = first + std::ssize(numbers), row = at / shape.cols, head = row / shape.rows;
        const auto rows =
            part_of(layers[static_cast<std::size_t>(head / shape.heads)], part, head % shape.heads);
        const ComputeScalar<T>* values = nullptr;
        if constexpr (Real<T>)
            values = rows.row(row % shape.rows).data();
        else
            values = rows.read(row % shape.rows, 1, room).data();
        const Index begin = at % shape.cols, end = std::min(shape.cols, begin + count - std::ssize(numbers));
        for (Index i = begin; i < end; ++i) numbers.push_back(static_cast<R>(values[i]));
    }
    return numbers;
}

template <InputScalar T>
HeadSource source_of(const Layers<T>& layers, Part part) {
    const HeadGroup<T>& group = layers->front();
    HeadSource shape;
    shape.layers = std::ssize(*layers);
    shape.heads = part == Part::q ? group.heads() : group.key_heads();
    shape.rows = part_of(group, part, 0).rows();
    shape.cols = part_of(group, part, 0).cols();
    shape.dtype = std::is_same_v<T, float>             ? io::Dtype::f32
                  : std::is_same_v<T, Eigen::half>     ? io::Dtype::f16
                  : std::is_same_v<T, Eigen::bfloat16> ? io::Dtype::bf16
                                                       : io::Dtype::f64;
    HeadSource source = shape;
    source.read = [=](Index first, Index count) {
        return elements<double>(*layers, part, shape, first, count);
    };
    source.read_floats = [=](Index first, Index count) {
        return elements<float>(*layers, part, shape, first, count);
    };
    return source;
}

template <InputScalar T>
std::string shape_text(const HeadGroup<T>& group) {
    return fmt::format("[{} of {}, {} x {}, {}, {}]", group.heads(), group.key_heads(), group.queries(),
                       group.keys(), group[0].q().cols(), group[0].has_values() ? group[0].v().cols() : 0);
}

} // namespace memory_capture
} // namespace detail

/// The heads of some layers of one shape, as a capture. Their memory is borrowed.
/// Shapes and units. attention: how each layer attends, one for each, or one for all. Its scale, unless given, is that of the
/// group.
/// Throws. `invalid_argument` for groups of different shapes, and for another number of layers.
/// Example: `const Report report = make_report(make_capture("engine", std::vector{layer0, layer1}, {{.causal = true}}));`
template <InputScalar T>
Capture make_capture(std::string name, std::vector<HeadGroup<T>> layers,
                     std::vector<LayerAttention> attention) {
    detail::require(!layers.empty() && layers.front().heads() > 0, "make_capture",
                    "there must be layers and heads");
    detail::require(attention.size() == 1 || attention.size() == layers.size(), "make_capture",
                    "attention must be told of each layer, or once for all", attention.size(), layers.size());
    if (attention.size() == 1) attention.resize(layers.size(), LayerAttention(attention.front()));
    const auto first = layers.front()[0];
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const HeadGroup<T>& group = layers[i];
        if (group.heads() != layers.front().heads() || group.key_heads() != layers.front().key_heads() ||
            group.queries() != first.queries() || group.keys() != first.keys() ||
            group[0].q().cols() != first.q().cols() || group[0].has_values() != first.has_values() ||
            group[0].v().cols() != first.v().cols())
            detail::fail("make_capture", "layers must have the shape of the first, " +
                                             detail::memory_capture::shape_text(layers.front()) + ", layer " +
                                             to_text(i) + " has " + detail::memory_capture::shape_text(group));
        // What nobody chose is 1/sqrt(d) in double, as of a file.
        if (!attention[i].scale && group[0].scale() != HeadView<T>::default_scale(first.q().cols()))
            attention[i].scale = static_cast<double>(group[0].scale());
    }
    Capture capture;
    capture.name = std::move(name);
    capture.layers = std::ssize(layers);
    capture.heads = layers.front().heads();
    capture.queries = first.queries();
    capture.keys = first.keys();
    capture.width = first.q().cols();
    capture.attention = std::move(attention);
    using detail::memory_capture::Part;
    const auto all = std::make_shared<const std::vector<HeadGroup<T>>>(std::move(layers));
    capture.q = detail::memory_capture::source_of<T>(all, Part::q);
    capture.k = detail::memory_capture::source_of<T>(all, Part::k);
    if (first.has_values()) capture.v = detail::memory_capture::source_of<T>(all, Part::v);
    return capture;
}

} // namespace v0_2
} // namespace attnscope
