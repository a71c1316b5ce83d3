// Softmax over rows by ggml, on one thread: its libraries are loaded from a folder, as llama.cpp's releases and the npm
// package @node-llama-cpp/linux-x64 have it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <dlfcn.h>

namespace bench {

/// The functions of ggml's interface that a softmax takes.
class Ggml {
public:
    struct Context;
    struct Tensor;
    struct Graph;
    struct Plan {
        std::size_t work_bytes = 0;
        unsigned char* work = nullptr;
        int threads = 1;
        void* pool = nullptr;
        std::array<unsigned char, 96> rest{}; ///< more than any version has
    };
    struct InitParams {
        std::size_t bytes;
        void* buffer;
        bool no_alloc;
    };

    Context* (*init)(InitParams) = nullptr;
    void (*free)(Context*) = nullptr;
    Tensor* (*new_tensor_2d)(Context*, int type, std::int64_t cols, std::int64_t rows) = nullptr;
    Tensor* (*soft_max)(Context*, Tensor*) = nullptr;
    void* (*get_data)(const Tensor*) = nullptr;
    Graph* (*new_graph)(Context*) = nullptr;
    void (*build_forward_expand)(Graph*, Tensor*) = nullptr;
    Plan (*plan)(const Graph*, int threads, void* pool) = nullptr;
    int (*compute)(Graph*, Plan*) = nullptr;

    /// The libraries in the folder that ATTNSCOPE_PEER_GGML names; null, said once and by name, where they are not.
    static const Ggml* load() {
        static Ggml ggml;
        static const std::string reason = [] {
            const char* folder = std::getenv("ATTNSCOPE_PEER_GGML");
            std::string text =
                folder == nullptr || *folder == '\0'
                    ? "ATTNSCOPE_PEER_GGML names no folder of libggml-base.so (benchmarks/run.sh fetches it)"
                    : ggml.open(folder);
            if (!text.empty()) std::printf("ggml is skipped: %s\n", text.c_str());
            return text;
        }();
        return reason.empty() ? &ggml : nullptr;
    }

private:
    /// Why not; empty if they are there.
    std::string open(const std::filesystem::path& folder) {
        void* const base = ::dlopen((folder / "libggml-base.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
        if (base == nullptr) return ::dlerror();
        // One library for each kind of processor, which knows how well it would do here: 0 if not at all.
        void* best = nullptr;
        int most = 0;
        std::error_code error;
        for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
            const std::string name = entry.path().filename().string();
            if (!name.starts_with("libggml-cpu") || entry.path().extension() != ".so") continue;
            void* const library = ::dlopen(entry.path().c_str(), RTLD_NOW | RTLD_LOCAL);
            if (library == nullptr) continue;
            const auto score = reinterpret_cast<int (*)()>(::dlsym(library, "ggml_backend_score"));
            if (const int points = score == nullptr ? 1 : score(); points > most) {
                if (best != nullptr) ::dlclose(best);
                most = points, best = library;
            } else {
                ::dlclose(library);
            }
        }
        if (best == nullptr) return "no libggml-cpu in " + folder.string() + " is for this processor";
        std::string missing;
        const auto find = [&](void* library, const char* name, auto& function) {
            void* const found = ::dlsym(library, name);
            if (found == nullptr) missing = std::string("no function ") + name;
            std::memcpy(&function, &found, sizeof function);
        };
        void (*cpu_init)() = nullptr;
        find(base, "ggml_init", init);
        find(base, "ggml_free", free);
        find(base, "ggml_new_tensor_2d", new_tensor_2d);
        find(base, "ggml_soft_max", soft_max);
        find(base, "ggml_get_data", get_data);
        find(base, "ggml_new_graph", new_graph);
        find(base, "ggml_build_forward_expand", build_forward_expand);
        find(best, "ggml_graph_plan", plan);
        find(best, "ggml_graph_compute", compute);
        find(best, "ggml_cpu_init", cpu_init);
        if (missing.empty()) cpu_init();
        return missing;
    }
};

/// Softmax of each row of z, [rows, cols] floats, of which it keeps a copy.
class GgmlSoftmax {
public:
    GgmlSoftmax(const Ggml& ggml, const float* z, std::int64_t rows, std::int64_t cols)
        : ggml_(ggml),
          context_(ggml.init({static_cast<std::size_t>(rows * cols) * 8 + (1u << 22), nullptr, false})) {
        Ggml::Tensor* const source = ggml.new_tensor_2d(context_, 0, cols, rows); // type 0: float
        std::memcpy(ggml.get_data(source), z, static_cast<std::size_t>(rows * cols) * sizeof(float));
        result_ = ggml.soft_max(context_, source);
        graph_ = ggml.new_graph(context_);
        ggml.build_forward_expand(graph_, result_);
        plan_ = ggml.plan(graph_, 1, nullptr);
        work_.resize(plan_.work_bytes);
        plan_.work = work_.data();
    }
    ~GgmlSoftmax() { ggml_.free(context_); }
    GgmlSoftmax(const GgmlSoftmax&) = delete;
    GgmlSoftmax& operator=(const GgmlSoftmax&) = delete;

    void operator()() { ggml_.compute(graph_, &plan_); }
    const float* result() const { return static_cast<const float*>(ggml_.get_data(result_)); }

private:
    const Ggml& ggml_;
    Ggml::Context* context_;
    Ggml::Tensor* result_ = nullptr;
    Ggml::Graph* graph_ = nullptr;
    Ggml::Plan plan_;
    std::vector<unsigned char> work_;
};

} // namespace bench
