/* What examples/models/llama_model.cpp uses of llama.cpp, declared after its documentation; see ggml.h beside it. */
#pragma once

#include "ggml-backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct llama_vocab;
struct llama_model;
struct llama_context;
typedef int32_t llama_token;

enum llama_flash_attn_type { LLAMA_FLASH_ATTN_TYPE_DISABLED = 0 };

struct llama_model_params {
    int32_t n_gpu_layers;
};
struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max;
    int32_t n_threads, n_threads_batch;
    enum llama_flash_attn_type flash_attn_type;
    ggml_backend_sched_eval_callback cb_eval;
    void* cb_eval_user_data;
    enum ggml_type type_k, type_v;
    ggml_abort_callback abort_callback;
    void* abort_callback_data;
    bool no_perf, swa_full;
};
struct llama_batch {
    int32_t n_tokens;
    llama_token* token;
    float* embd;
    int32_t* pos;
    int32_t* n_seq_id;
    int32_t** seq_id;
    int8_t* logits;
};

void llama_backend_init(void);
void llama_log_set(ggml_log_callback callback, void* user_data);

struct llama_model_params llama_model_default_params(void);
struct llama_model* llama_model_load_from_file(const char* path, struct llama_model_params parameters);
void llama_model_free(struct llama_model* model);
const struct llama_vocab* llama_model_get_vocab(const struct llama_model* model);
bool llama_model_has_encoder(const struct llama_model* model);
int32_t llama_model_desc(const struct llama_model* model, char* text, size_t size);
int32_t llama_model_n_layer(const struct llama_model* model);
int32_t llama_model_n_embd(const struct llama_model* model);
int32_t llama_model_n_ctx_train(const struct llama_model* model);
int32_t llama_vocab_n_tokens(const struct llama_vocab* vocabulary);
int32_t llama_tokenize(const struct llama_vocab* vocabulary, const char* text, int32_t length, llama_token* tokens,
                       int32_t most, bool add_special, bool parse_special);
int32_t llama_token_to_piece(const struct llama_vocab* vocabulary, llama_token token, char* text, int32_t length,
                             int32_t left_stripped, bool special);

struct llama_context_params llama_context_default_params(void);
struct llama_context* llama_init_from_model(struct llama_model* model, struct llama_context_params parameters);
void llama_free(struct llama_context* context);
struct llama_batch llama_batch_init(int32_t tokens, int32_t width, int32_t sequences);
void llama_batch_free(struct llama_batch batch);
int32_t llama_decode(struct llama_context* context, struct llama_batch batch);
float* llama_get_logits_ith(struct llama_context* context, int32_t index);

#ifdef __cplusplus
}
#endif
