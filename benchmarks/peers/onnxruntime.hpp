// Softmax over rows by ONNX Runtime, on one thread. Its headers are found when this is built; its library is loaded, as the
// npm package onnxruntime-node has it: that of Debian 13 prints a thousand lines of errors whenever it is.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#ifdef ATTNSCOPE_HAVE_ONNXRUNTIME
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <array>
#include <optional>

#include <dlfcn.h>
#endif

namespace bench {

/// Says, once and by name, why ONNX Runtime is not compared with; whether it is.
inline bool has_onnxruntime() {
    static const std::string reason = [] {
#ifdef ATTNSCOPE_HAVE_ONNXRUNTIME
        const char* const library = std::getenv("ATTNSCOPE_PEER_ONNXRUNTIME");
        std::string text =
            "ATTNSCOPE_PEER_ONNXRUNTIME names no libonnxruntime.so (benchmarks/run.sh fetches it)";
        if (library != nullptr && *library != '\0') {
            void* const handle = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
            const auto base = handle == nullptr
                                  ? nullptr
                                  : reinterpret_cast<const OrtApiBase* (*)()>(::dlsym(handle, "OrtGetApiBase"));
            const OrtApi* const api = base == nullptr ? nullptr : base()->GetApi(ORT_API_VERSION);
            text = handle == nullptr ? ::dlerror() : api == nullptr ? "another version of its interface" : "";
            if (api != nullptr) Ort::InitApi(api);
        }
#else
        std::string text = "its headers were not found when this was built (Debian 13: libonnxruntime-dev)";
#endif
        if (!text.empty()) std::printf("ONNX Runtime is skipped: %s\n", text.c_str());
        return text;
    }();
    return reason.empty();
}

#ifdef ATTNSCOPE_HAVE_ONNXRUNTIME

/// A model of one node, Y = Softmax(X) over the last of two dimensions, in the bytes of ONNX's protocol buffers: a field
/// is its number and kind, then its length, then what it holds.
inline std::string onnx_softmax_model() {
    const auto field = [](int number, const std::string& content) {
        std::string text(1, static_cast<char>(number * 8 + 2));
        return text + static_cast<char>(content.size()) + content; // shorter than 128 bytes
    };
    const auto integer = [](int number, int value) {
        return std::string(1, static_cast<char>(number * 8)) + static_cast<char>(value);
    };
    const auto value = [&](const std::string& name) { // float [rows, cols]
        const std::string shape = field(2, field(1, field(2, "r")) + field(1, field(2, "c")));
        return field(1, name) + field(2, field(1, integer(1, 1) + shape));
    };
    const std::string node = field(1, "X") + field(2, "Y") + field(4, "Softmax"),
                      graph = field(1, node) + field(2, "g") + field(11, value("X")) + field(12, value("Y"));
    return integer(1, 8) + field(7, graph) + field(8, integer(2, 13)); // version of the format, operators 13
}

/// p = softmax of each row of z, [rows, cols] floats.
class OnnxRuntimeSoftmax {
public:
    OnnxRuntimeSoftmax(const float* z, float* p, std::int64_t rows, std::int64_t cols) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1);
        options.SetInterOpNumThreads(1);
        const std::string model = onnx_softmax_model();
        session_.emplace(environment(), model.data(), model.size(), options);
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const std::array<std::int64_t, 2> shape{rows, cols};
        const auto size = static_cast<std::size_t>(rows * cols);
        // It does not write to its source.
        source_ =
            Ort::Value::CreateTensor<float>(memory, const_cast<float*>(z), size, shape.data(), shape.size());
        result_ = Ort::Value::CreateTensor<float>(memory, p, size, shape.data(), shape.size());
    }
    void operator()() {
        const char *const in = "X", *const out = "Y";
        session_->Run(Ort::RunOptions{nullptr}, &in, &source_, 1, &out, &result_, 1);
    }

private:
    static Ort::Env& environment() {
        static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "attnscope");
        return env;
    }
    std::optional<Ort::Session> session_;
    Ort::Value source_{nullptr}, result_{nullptr};
};

#endif

} // namespace bench
