// How fast is a safe row softmax? Figures in ns per element.
#include "peers/ggml.hpp"
#include "peers/onednn.hpp"
#include "peers/onnxruntime.hpp"
#include "support/softmax_check.hpp"

#include <cstring>

namespace {

using namespace bench;

template <Real T>
void softmax_by_std(const T* z, T* p, Index n) {
    const T m = *std::max_element(z, z + n);
    T sum = 0;
    for (Index i = 0; i < n; ++i) sum += p[i] = std::exp(z[i] - m);
    for (Index i = 0; i < n; ++i) p[i] /= sum;
}

template <Real T>
void add_case(const char* scalar, bool masked, Index length) {
    const Index rows = elements / length;
    const std::string row =
        std::string(scalar) + (masked ? " masked" : " dense ") + " L=" + std::to_string(length);
    const auto z = std::make_shared<const Matrix<T>>(logits<T>(rows, length, masked));
    const auto p = std::make_shared<Matrix<T>>(Matrix<T>::Zero(rows, length));
    const Work work{static_cast<double>(z->size())};
    const auto check = [=](bool exact_zeros, T units) {
        return [=](const std::string& who) { verify_softmax(*z, *p, exact_zeros, units, who); };
    };
    const T length_units = static_cast<T>(length);

    add(
        row, "attnscope", work,
        [=] {
            for (Index i = 0; i < rows; ++i) attnscope::Softmax{}.apply<T>(row_in(*z, i), row_out(*p, i));
        },
        check(true, T(64)));
    // Packet exp(-inf) is a tiny number in Eigen 3.4: not safe, and masked keys keep weight.
    add(
        row, "Eigen rows, unsafe", work,
        [=] {
            for (Index i = 0; i < rows; ++i) {
                p->row(i).array() = (z->row(i).array() - z->row(i).maxCoeff()).exp();
                p->row(i) *= 1 / p->row(i).sum();
            }
        },
        check(false, length_units));
    const auto of_row = std::make_shared<Eigen::Array<T, Eigen::Dynamic, 1>>(rows);
    add(
        row, "Eigen whole matrix", work,
        [=] {
            *of_row = z->rowwise().maxCoeff();
            p->array() = (z->array().colwise() - *of_row).exp();
            *of_row = p->rowwise().sum();
            p->array().colwise() /= *of_row;
        },
        check(false, length_units));
    add(
        row, "std::exp", work,
        [=] {
            for (Index i = 0; i < rows; ++i)
                softmax_by_std(row_in(*z, i).data(), row_out(*p, i).data(), length);
        },
        check(true, length_units));
#ifdef ATTNSCOPE_HAVE_ONEDNN
    if constexpr (std::same_as<T, float>) { // it has no softmax in double
        if (onednn_absence().empty()) {
            const auto peer = std::make_shared<OneDnnSoftmax>(z->data(), p->data(), rows, length);
            add(
                row, "oneDNN", work, [=] { (*peer)(); }, check(true, T(64)));
        }
    }
#endif
    if constexpr (std::same_as<T, float>) {
#ifdef ATTNSCOPE_HAVE_ONNXRUNTIME
        if (has_onnxruntime()) {
            const auto peer = std::make_shared<OnnxRuntimeSoftmax>(z->data(), p->data(), rows, length);
            add(
                row, "ONNX Runtime", work, [=] { (*peer)(); }, check(true, T(64)));
        }
#endif
        if (const Ggml* const ggml = Ggml::load()) {
            const auto of_ggml = std::make_shared<GgmlSoftmax>(*ggml, z->data(), rows, length);
            add(
                row, "ggml", work, [=] { (*of_ggml)(); },
                [=](const std::string& who) {
                    *p = Eigen::Map<const Matrix<T>>(of_ggml->result(), rows, length);
                    check(true, T(64))(who);
                });
        }
    }
    add(
        row, "copy", work,
        [=] { std::memcpy(p->data(), z->data(), static_cast<std::size_t>(z->size()) * sizeof(T)); },
        [=](const std::string& who) { verify(*p == *z, who, "the copy differs"); });
}

} // namespace

int main(int argc, char** argv) {
    onednn_absence();
    has_onnxruntime();
    for (const Index length : {128, 1024, 16384})
        for (const bool masked : {false, true}) {
            add_case<float>("float ", masked, length);
            add_case<double>("double", masked, length);
        }
    return run(argc, argv, "Row softmax: ns per element, median, one thread",
               {"attnscope", "Eigen rows, unsafe", "Eigen whole matrix", "std::exp", "oneDNN", "ONNX Runtime",
                "ggml", "copy"});
}
