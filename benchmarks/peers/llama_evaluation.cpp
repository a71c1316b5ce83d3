// llama.cpp by itself: seconds of evaluating a text as attnscope's programs do it (one batch, flash attention off, caches in
// float), first with the logits of the last token alone, then with those of all, and the loss that these give.
// benchmarks/model_evaluation.py compiles it.
//   llama_evaluation MODEL.gguf IDS THREADS
// IDS: a file of token numbers. Prints "last SECONDS", "all SECONDS" and "loss NATS".
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

namespace {

/// -log of the probability of a token under softmax of `logits`.
double surprise(const float* logits, int words, llama_token token) {
    const double most = *std::max_element(logits, logits + words);
    double sum = 0;
    for (int i = 0; i < words; ++i) sum += std::exp(logits[i] - most);
    return std::log(sum) + most - logits[token];
}

/// Seconds, and the mean surprise of every token behind the first where all logits are asked for.
bool evaluate(llama_model* model, const std::vector<llama_token>& ids, int threads, bool all) {
    const auto count = static_cast<std::uint32_t>(ids.size());
    llama_context_params options = llama_context_default_params();
    options.n_ctx = options.n_batch = options.n_ubatch = count;
    options.n_threads = options.n_threads_batch = threads;
    options.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    options.type_k = options.type_v = GGML_TYPE_F32;
    options.swa_full = true;
    llama_context* const context = llama_init_from_model(model, options);
    if (context == nullptr) return false;
    llama_batch batch = llama_batch_init(static_cast<std::int32_t>(count), 0, 1);
    batch.n_tokens = static_cast<std::int32_t>(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        batch.token[i] = ids[i];
        batch.pos[i] = static_cast<llama_pos>(i);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = all || i + 1 == count;
    }
    const auto begin = std::chrono::steady_clock::now();
    const bool done = llama_decode(context, batch) == 0;
    llama_synchronize(context);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (done) {
        std::printf("%s %.6f\n", all ? "all" : "last", seconds);
        const int words = llama_vocab_n_tokens(llama_model_get_vocab(model));
        double loss = 0;
        for (std::uint32_t i = 0; all && i + 1 < count; ++i)
            loss += surprise(llama_get_logits_ith(context, static_cast<std::int32_t>(i)), words, ids[i + 1]) /
                    (count - 1);
        if (all) std::printf("loss %.9f\n", loss);
    }
    llama_batch_free(batch);
    llama_free(context);
    return done;
}

} // namespace

int main(int count, char** words) {
    if (count != 4) return 2;
    std::ifstream file(words[2]);
    std::vector<llama_token> ids;
    for (llama_token id = 0; file >> id;) ids.push_back(id);
    const int threads = std::atoi(words[3]);
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    ggml_backend_load_all();
    llama_backend_init();
    llama_model* const model = llama_model_load_from_file(words[1], llama_model_default_params());
    if (model == nullptr || ids.size() < 2 || threads < 1) return 1;
    const bool done = evaluate(model, ids, threads, false) && evaluate(model, ids, threads, true);
    llama_model_free(model);
    llama_backend_free();
    return done ? 0 : 1;
}
