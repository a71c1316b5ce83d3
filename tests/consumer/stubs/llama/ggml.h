/* What examples/models/llama_model.cpp uses of ggml, declared after its documentation: lets that file be compiled where
   llama.cpp is missing. Nothing here is defined. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ggml_type { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16 = 30 };
enum ggml_op {
    GGML_OP_NONE,
    GGML_OP_MUL_MAT,
    GGML_OP_SCALE,
    GGML_OP_CONT,
    GGML_OP_RESHAPE,
    GGML_OP_SOFT_MAX,
    GGML_OP_UNARY
};
enum ggml_unary_op { GGML_UNARY_OP_TANH = 4 };
enum ggml_log_level { GGML_LOG_LEVEL_ERROR = 4 };

struct ggml_tensor {
    enum ggml_type type;
    int64_t ne[4];
    size_t nb[4];
    enum ggml_op op;
    int32_t op_params[16];
    struct ggml_tensor* src[10];
    char name[64];
};

typedef void (*ggml_log_callback)(enum ggml_log_level level, const char* text, void* user_data);
typedef bool (*ggml_abort_callback)(void* data);

size_t ggml_nbytes(const struct ggml_tensor* tensor);
const char* ggml_type_name(enum ggml_type type);
const char* ggml_op_name(enum ggml_op op);

#ifdef __cplusplus
}
#endif
