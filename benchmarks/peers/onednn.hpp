// Softmax over rows by oneDNN (2.6 or later, or 3), on one thread.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#ifdef ATTNSCOPE_HAVE_ONEDNN
#include <dnnl.hpp>

#include <memory>
#endif

namespace bench {

/// Says, once and by name, why oneDNN is not compared with; empty if it is.
inline const std::string& onednn_absence() {
    static const std::string reason = [] {
#ifdef ATTNSCOPE_HAVE_ONEDNN
        const char* threads = std::getenv("OMP_NUM_THREADS");
        std::string text = threads && std::string(threads) == "1"
                               ? ""
                               : "oneDNN is skipped: it takes one thread only with OMP_NUM_THREADS=1";
#else
        std::string text = "oneDNN is skipped: it was not found when this was built (Debian: libdnnl-dev)";
#endif
        if (!text.empty()) std::printf("%s\n", text.c_str());
        return text;
    }();
    return reason;
}

#ifdef ATTNSCOPE_HAVE_ONEDNN

/// p = softmax of each row of z, [rows, cols] floats.
class OneDnnSoftmax {
public:
    OneDnnSoftmax(const float* z, float* p, dnnl::memory::dim rows, dnnl::memory::dim cols)
        : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
        const dnnl::memory::desc shape({rows, cols}, dnnl::memory::data_type::f32,
                                       dnnl::memory::format_tag::ab);
        // oneDNN does not write to its source.
        source_ = dnnl::memory(shape, engine_, const_cast<float*>(z));
        result_ = dnnl::memory(shape, engine_, p);
#if DNNL_VERSION_MAJOR >= 3
        softmax_ = dnnl::softmax_forward(dnnl::softmax_forward::primitive_desc(
            engine_, dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, shape, shape, 1));
#else
        softmax_ = dnnl::softmax_forward(
            dnnl::softmax_forward::primitive_desc({dnnl::prop_kind::forward_inference, shape, 1}, engine_));
#endif
    }
    void operator()() {
        softmax_.execute(stream_, {{DNNL_ARG_SRC, source_}, {DNNL_ARG_DST, result_}});
        stream_.wait();
    }

private:
    dnnl::engine engine_;
    dnnl::stream stream_;
    dnnl::memory source_, result_;
    dnnl::softmax_forward softmax_;
};

#endif

} // namespace bench
