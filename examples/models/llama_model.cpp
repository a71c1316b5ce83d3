#include <models/llama_model.hpp>

#include <support/failure.hpp>

#include <attnscope/io/file.hpp>

#include <limits>

namespace models {

bool LlamaModel::is_gguf(const std::string& path) {
    const attnscope::io::File file = attnscope::io::File::open(path);
    std::string start(4, '\0');
    if (file.size() < start.size()) return false;
    file.read(0, std::as_writable_bytes(std::span(start)));
    return start == "GGUF";
}

} // namespace models

#ifdef ATTNSCOPE_LLAMA

#include <attnscope/row/row_statistics.hpp>

#include <Eigen/Core>
#include <fmt/ranges.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <llama.h>

#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>

namespace models {
namespace {

/// What llama.cpp complained of first, which is the cause of the rest: it reports no errors but in its log.
class Log {
public:
    static Log& instance() {
        static Log log;
        return log;
    }
    std::string first() {
        const std::lock_guard lock(mutex_);
        return first_.empty() ? std::string() : fmt::format(": {}", first_);
    }
    void clear() {
        const std::lock_guard lock(mutex_);
        first_.clear();
    }

private:
    Log() {
        llama_log_set(
            [](ggml_log_level level, const char* text, void* self) {
                if (level != GGML_LOG_LEVEL_ERROR) return;
                auto& log = *static_cast<Log*>(self);
                const std::lock_guard lock(log.mutex_);
                if (!log.first_.empty()) return;
                log.first_ = text;
                while (!log.first_.empty() && log.first_.back() == '\n') log.first_.pop_back();
            },
            this);
        ggml_backend_load_all();
        llama_backend_init();
    }
    std::mutex mutex_;
    std::string first_;
};

template <class T, void (*release)(T*)>
struct Release {
    void operator()(T* pointer) const { release(pointer); }
};
using ModelPointer = std::unique_ptr<llama_model, Release<llama_model, llama_model_free>>;
using ContextPointer = std::unique_ptr<llama_context, Release<llama_context, llama_free>>;

float float_parameter(const ggml_tensor* node, std::size_t index) {
    float value = 0;
    std::memcpy(&value, &node->op_params[index], sizeof value);
    return value;
}

/// Numbers of a tensor with any strides. Valid while the node that read it has just been computed.
class Elements {
public:
    explicit Elements(const ggml_tensor* tensor) : tensor_(tensor), bytes_(ggml_nbytes(tensor)) {
        if (tensor->type != GGML_TYPE_F32 && tensor->type != GGML_TYPE_F16 && tensor->type != GGML_TYPE_BF16)
            program::fail("{}: expected f32, f16 or bf16, found {}", tensor->name,
                          ggml_type_name(tensor->type));
        ggml_backend_tensor_get(tensor, bytes_.data(), 0, bytes_.size());
    }
    /// Place of a tensor's dimensions 0, 1, 2.
    float operator()(Index i, Index j, Index h) const {
        const std::size_t* const stride = tensor_->nb;
        const unsigned char* const at = bytes_.data() + static_cast<std::size_t>(i) * stride[0] +
                                        static_cast<std::size_t>(j) * stride[1] +
                                        static_cast<std::size_t>(h) * stride[2];
        if (tensor_->type == GGML_TYPE_F16) return static_cast<float>(element<Eigen::half>(at));
        if (tensor_->type == GGML_TYPE_BF16) return static_cast<float>(element<Eigen::bfloat16>(at));
        return element<float>(at);
    }

private:
    template <class T>
    static T element(const unsigned char* at) {
        T value;
        std::memcpy(&value, at, sizeof value);
        return value;
    }
    const ggml_tensor* tensor_;
    std::vector<unsigned char> bytes_;
};

/// [heads, rows, cols] of a tensor whose columns are dimension 0 and whose rows are dimension 1, or the other way round.
std::vector<float> matrices(const ggml_tensor* tensor, Index rows, Index cols, bool columns_first) {
    std::vector<float> result;
    if (columns_first && tensor->type == GGML_TYPE_F32 && tensor->nb[0] == sizeof(float)) { // rows as they are
        const auto row = static_cast<std::size_t>(cols), height = static_cast<std::size_t>(rows);
        result.resize(static_cast<std::size_t>(tensor->ne[2]) * height * row);
        const bool whole = tensor->nb[1] == row * sizeof(float); // one behind the other
        const std::size_t at_once = whole ? height : 1;
        float* to = result.data();
        for (std::size_t head = 0; head < static_cast<std::size_t>(tensor->ne[2]); ++head)
            for (std::size_t i = 0; i < height; i += at_once, to += at_once * row)
                ggml_backend_tensor_get(tensor, to, head * tensor->nb[2] + i * tensor->nb[1],
                                        at_once * row * sizeof(float));
        return result;
    }
    const Elements elements(tensor);
    result.reserve(static_cast<std::size_t>(tensor->ne[2] * rows * cols));
    for (Index head = 0; head < tensor->ne[2]; ++head)
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < cols; ++j)
                result.push_back(columns_first ? elements(j, i, head) : elements(i, j, head));
    return result;
}

/// The nodes of a layer's attention: kq = k q, soft_max of what became of it, kqv = v soft_max.
/// `before`: it is of no layer. `input`: what is made of the embeddings, `residual`: the stream that leaves the layer.
enum class Node { none, before, input, scores, weights, output, latent, residual };

/// Which of them a node is, and of which layer: names are such as "kq_soft_max-3".
std::pair<Node, Index> node_of(std::string_view name) {
    const std::size_t dash = name.rfind('-');
    if (dash == name.npos || dash + 1 == name.size()) return {Node::before, 0};
    Index layer = 0;
    for (const char digit : name.substr(dash + 1)) {
        if (digit < '0' || digit > '9' || layer > 1'000'000) return {Node::before, 0};
        layer = layer * 10 + (digit - '0');
    }
    const std::string_view stem = name.substr(0, dash);
    if (stem == "kq") return {Node::scores, layer};
    if (stem == "kq_soft_max" || stem == "kq_soft_max_ext") return {Node::weights, layer};
    if (stem == "kqv") return {Node::output, layer};
    if (stem == "kqv_mla") return {Node::latent, layer};
    if (stem == "l_out") return {Node::residual, layer};
    if (stem.starts_with("inp_")) return {Node::input, layer};
    return {Node::none, 0};
}

bool is_softmax_of_scores(const ggml_tensor* node) { return node->op == GGML_OP_SOFT_MAX && node->src[0]; }

/// The product that the scores of a softmax come from; the factors on the way go into `layer`. Null for a graph of
/// another form.
const ggml_tensor* scores_of(const ggml_tensor* softmax, LlamaLayer& layer) {
    double outer = float_parameter(softmax, 0), inner = 1;
    bool capped = false;
    for (const ggml_tensor* node = softmax->src[0]; node; node = node->src[0]) {
        switch (node->op) {
        case GGML_OP_MUL_MAT:
            layer.softcap = capped ? outer : 0;
            layer.scale = outer * inner;
            return node;
        case GGML_OP_SCALE:
            if (float_parameter(node, 1) != 0) return nullptr; // adds a constant
            (capped ? inner : outer) *= float_parameter(node, 0);
            break;
        case GGML_OP_UNARY:
            if (capped || node->op_params[0] != GGML_UNARY_OP_TANH) return nullptr;
            capped = true;
            break;
        case GGML_OP_CONT:
        case GGML_OP_RESHAPE:
            break;
        default:
            return nullptr;
        }
    }
    return nullptr;
}

/// Slopes of ALiBi: e_h of the head h of n, a geometric sequence whose first m = 2^floor(log2 n) terms end at
/// 2^-max_bias, and for the others every second term of one twice as fine.
std::vector<double> alibi_slopes(double max_bias, Index heads) {
    Index power = 1;
    while (2 * power <= heads) power *= 2;
    const double first = std::exp2(-max_bias / static_cast<double>(power)),
                 finer = std::exp2(-max_bias / 2 / static_cast<double>(power));
    std::vector<double> slopes;
    for (Index head = 0; head < heads; ++head)
        slopes.push_back(head < power ? std::pow(first, static_cast<double>(head + 1))
                                      : std::pow(finer, static_cast<double>(2 * (head - power) + 1)));
    return slopes;
}

/// Causality and window of an additive mask [n, n], where they say all of it.
bool describe_mask(const std::vector<float>& mask, Index n, LlamaLayer& layer) {
    constexpr float hidden = -std::numeric_limits<float>::infinity();
    for (Index query = 0; query < n; ++query)
        for (Index key = query + 1; key < n; ++key)
            layer.sees_later = layer.sees_later || mask[static_cast<std::size_t>(query * n + key)] != hidden;
    if (n > 1 && std::all_of(mask.begin(), mask.end(), [](float x) { return x == 0; }))
        return true; // every query sees every key
    Index window = 0;
    for (Index query = 0; query < n; ++query) {
        const float* const row = mask.data() + query * n;
        const Index first = std::find(row, row + n, 0.0F) - row;
        for (Index key = 0; key < n; ++key)
            if (row[key] != (key >= first && key <= query ? 0.0F : hidden)) return false;
        if (first > query || (window > 0 && first != query - window + 1)) return false;
        if (first > 0) window = query - first + 1;
    }
    layer.causal = true;
    layer.window = window;
    return true;
}

} // namespace

struct LlamaModel::State {
    ModelPointer model;
    const llama_vocab* vocabulary = nullptr;
};

namespace {

/// One decoding of a prompt. The callback is C's: what is thrown in it waits in `error`.
class Decoding {
public:
    Decoding(const std::string& file, llama_model* model, std::span<const std::int32_t> ids, Index threads)
        : file_(file), ids_(ids), n_(static_cast<Index>(ids.size())), width_(llama_model_n_embd(model)),
          layers_of_model_(llama_model_n_layer(model)) {
        llama_context_params parameters = llama_context_default_params();
        const auto tokens = static_cast<std::uint32_t>(ids.size());
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = tokens;
        parameters.n_seq_max = 1;
        parameters.n_threads = parameters.n_threads_batch = static_cast<std::int32_t>(threads);
        parameters.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED; // it never has the weights
        parameters.type_k = parameters.type_v = GGML_TYPE_F32;
        parameters.swa_full = true; // keys in the order of the tokens
        parameters.no_perf = true;
        parameters.cb_eval = [](ggml_tensor* node, bool ask, void* self) {
            return static_cast<Decoding*>(self)->node(node, ask);
        };
        parameters.cb_eval_user_data = this;
        parameters.abort_callback = [](void* self) { return static_cast<Decoding*>(self)->stop_; };
        parameters.abort_callback_data = this;
        Log::instance().clear();
        context_.reset(llama_init_from_model(model, parameters));
        if (!context_)
            program::fail("{}: llama.cpp made no context of {} tokens{}", file_, n_, Log::instance().first());
    }
    Decoding(const Decoding&) = delete;
    Decoding& operator=(const Decoding&) = delete;

    /// Looks at the graph. stop: ends before anything is computed, where the backend can.
    std::map<Index, LlamaLayer> survey(bool stop) {
        surveying_ = true;
        stop_ = stop;
        decode(false);
        return std::move(layers_);
    }
    /// Hands out every layer.
    void run(const LlamaRun& options) {
        options_ = &options;
        // With fewer logits asked for, the stream of the last layer has fewer rows.
        if (!decode(options.loss || options.hidden))
            program::fail("{}: llama.cpp did not evaluate the prompt{}", file_, Log::instance().first());
        if (!options.hidden) return;
        if (stream_layer_ != layers_of_model_) no_stream(layers_of_model_);
        if (options.last_hidden) options.last_hidden(std::move(stream_));
    }
    llama_context* context() const { return context_.get(); }

private:
    /// Whether llama.cpp says that all went well. Throws what was thrown on the way.
    bool decode(bool all_logits) {
        llama_batch batch = llama_batch_init(static_cast<std::int32_t>(n_), 0, 1);
        batch.n_tokens = static_cast<std::int32_t>(n_);
        for (Index i = 0; i < n_; ++i) {
            batch.token[i] = ids_[static_cast<std::size_t>(i)];
            batch.pos[i] = static_cast<std::int32_t>(i);
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = all_logits || i + 1 == n_;
        }
        const int status = llama_decode(context_.get(), batch);
        llama_batch_free(batch);
        if (error_) std::rethrow_exception(error_);
        return status == 0;
    }

    bool node(const ggml_tensor* node, bool ask) {
        if (error_) return false;
        try {
            const auto [kind, layer] = node_of(node->name);
            if (!surveying_ && options_->hidden) {
                if (ask && kind != Node::before) enter_first_layer(node);
                if (kind == Node::residual ||
                    (stream_layer_ <= 0 && (kind == Node::before || kind == Node::input)))
                    return take_stream(node, kind, layer, ask);
            }
            if (kind == Node::none || kind == Node::before || kind == Node::input || kind == Node::residual) {
                const std::string_view name = node->name;
                if (surveying_ && ask && (name.find("kq") != name.npos || name.find("attn") != name.npos) &&
                    seen_.size() < 40)
                    seen_.emplace_back(name);
                return !ask;
            }
            if (surveying_) {
                if (ask) look_at(node, kind, layer);
                return !ask;
            }
            const std::vector<Index>& wanted = options_->layers;
            if (!wanted.empty() && !std::binary_search(wanted.begin(), wanted.end(), layer)) return !ask;
            if (ask) return kind != Node::latent && (kind != Node::weights || options_->weights);
            take(node, kind, layer);
            return true;
        } catch (...) {
            error_ = std::current_exception();
            stop_ = true;
            return false;
        }
    }

    [[noreturn]] void refuse(const ggml_tensor* node, std::string_view reason) const {
        program::fail(
            "{}: the graph's attention is not as expected: node {} ({} [{},{},{},{}]): {}; nodes of attention "
            "seen before it: {}",
            file_, node->name, ggml_op_name(node->op), node->ne[0], node->ne[1], node->ne[2], node->ne[3],
            reason, fmt::join(seen_, " "));
    }

    void look_at(const ggml_tensor* node, Node kind, Index number) {
        seen_.emplace_back(node->name);
        LlamaLayer& layer = layers_[number];
        layer.number = number;
        if (kind == Node::latent) layer.latent = true;
        if (kind == Node::output) layer.value_width = node->ne[0];
        if (kind != Node::weights) return;
        if (!is_softmax_of_scores(node)) refuse(node, "expected SOFT_MAX");
        const ggml_tensor* const scores = scores_of(node, layer);
        if (!scores) refuse(node, "its logits are no scaled or capped product of keys and queries");
        const ggml_tensor *const k = scores->src[0], *const q = scores->src[1];
        if (q->ne[1] != n_ || q->ne[3] != 1 || k->ne[1] < n_ || k->ne[3] != 1 || q->ne[2] % k->ne[2] != 0)
            refuse(scores, fmt::format("expected all {} queries, and as many keys, of one sequence", n_));
        layer.heads = q->ne[2];
        layer.key_heads = k->ne[2];
        layer.width = q->ne[0];
        if (const ggml_tensor* const sinks = node->src[2]) {
            const Elements elements(sinks);
            for (Index head = 0; head < layer.heads; ++head) layer.sinks.push_back(elements(head, 0, 0));
        }
        const double max_bias = float_parameter(node, 1);
        layer.sees_later = !node->src[1];
        if (!node->src[1]) return; // every query sees every key
        const auto mask = mask_of(node->src[1]);
        if (describe_mask(*mask, n_, layer) && max_bias == 0) return;
        layer.causal = false; // the mask says it
        layer.window = 0;
        layer.mask = mask;
        layer.slopes = max_bias > 0 ? alibi_slopes(max_bias, layer.heads) : std::vector<double>{1};
    }

    /// [n, n] of an input of the graph, which several layers share.
    std::shared_ptr<const std::vector<float>> mask_of(const ggml_tensor* tensor) {
        auto& mask = masks_[tensor];
        if (mask) return mask;
        if (tensor->ne[0] < n_ || tensor->ne[1] < n_ || tensor->ne[2] != 1)
            refuse(tensor, fmt::format("expected a mask of {} queries", n_));
        const Elements elements(tensor);
        std::vector<float> values;
        for (Index query = 0; query < n_; ++query) {
            for (Index key = 0; key < n_; ++key) values.push_back(elements(key, query, 0));
            for (Index key = n_; key < tensor->ne[0]; ++key)
                if (elements(key, query, 0) != -std::numeric_limits<float>::infinity())
                    refuse(tensor, "keys behind the last token are seen");
        }
        mask = std::make_shared<const std::vector<float>>(std::move(values));
        return mask;
    }

    /// The first node of a layer takes what enters layer 0. (An embedding's norm may bear that number, too: then a
    /// node of kind `input` follows.)
    void enter_first_layer(const ggml_tensor* node) {
        if (stream_layer_ >= 0) return;
        stream_layer_ = 0;
        for (const ggml_tensor* const source : {node->src[0], node->src[1]})
            if (const auto found = inputs_.find(source); found != inputs_.end())
                stream_ = std::move(found->second);
        inputs_.clear();
    }
    /// The residual stream, and what may enter layer 0.
    bool take_stream(const ggml_tensor* node, Node kind, Index layer, bool ask) {
        const bool fits =
            node->ne[0] == width_ && node->ne[1] == n_ && node->ne[2] == 1 && node->type == GGML_TYPE_F32;
        if (ask) return fits && (kind != Node::before || stream_layer_ < 0);
        (kind == Node::before ? inputs_[node] : stream_) = matrices(node, n_, width_, true);
        if (kind == Node::residual) stream_layer_ = layer + 1;
        return true;
    }
    [[noreturn]] void no_stream(Index layer) const {
        program::fail(
            "{}: the graph has no node that tells the residual stream that {} (expected l_out-0, ..., "
            "[{},{}])",
            file_, layer < layers_of_model_ ? fmt::format("enters layer {}", layer) : "leaves the last layer",
            width_, n_);
    }

    void take(const ggml_tensor* node, Node kind, Index layer) {
        switch (kind) {
        case Node::scores:
            tensors_ = {};
            tensors_.k = matrices(node->src[0], n_, node->src[0]->ne[0], true);
            tensors_.q = matrices(node->src[1], n_, node->src[1]->ne[0], true);
            break;
        case Node::weights:
            tensors_.weights = matrices(node, n_, n_, true);
            break;
        case Node::output:
            tensors_.v = matrices(node->src[0], n_, node->ne[0], false);
            if (options_->hidden) {
                if (stream_layer_ != layer || stream_.empty()) no_stream(layer);
                tensors_.hidden = stream_;
            }
            if (options_->layer) options_->layer(std::move(tensors_));
            break;
        default:
            break;
        }
    }

    const std::string& file_;
    std::span<const std::int32_t> ids_;
    Index n_, width_, layers_of_model_;
    ContextPointer context_;
    const LlamaRun* options_ = nullptr;
    bool surveying_ = false, stop_ = false;
    std::map<Index, LlamaLayer> layers_;
    std::map<const ggml_tensor*, std::shared_ptr<const std::vector<float>>> masks_;
    std::vector<std::string> seen_;
    program::LayerTensors tensors_;
    std::map<const ggml_tensor*, std::vector<float>>
        inputs_;                ///< nodes before layer 0 of the shape of the stream
    std::vector<float> stream_; ///< the residual stream that enters layer stream_layer_; -1: no layer has begun
    Index stream_layer_ = -1;
    std::exception_ptr error_;
};

} // namespace

bool LlamaModel::available() { return true; }

LlamaModel::LlamaModel(const std::string& file) : file_(file), state_(std::make_unique<State>()) {
    Log::instance().clear();
    state_->model.reset(llama_model_load_from_file(file.c_str(), llama_model_default_params()));
    if (!state_->model) program::fail("{}: llama.cpp does not load it{}", file, Log::instance().first());
    state_->vocabulary = llama_model_get_vocab(state_->model.get());
    if (llama_model_has_encoder(state_->model.get()))
        program::fail("{}: a model with an encoder; only decoders are analysed", file);
}
LlamaModel::~LlamaModel() = default;
LlamaModel::LlamaModel(LlamaModel&&) noexcept = default;
LlamaModel& LlamaModel::operator=(LlamaModel&&) noexcept = default;

std::string LlamaModel::description() const {
    std::array<char, 256> text{};
    llama_model_desc(state_->model.get(), text.data(), text.size());
    return text.data();
}
Index LlamaModel::layers() const { return llama_model_n_layer(state_->model.get()); }
Index LlamaModel::context() const { return llama_model_n_ctx_train(state_->model.get()); }
Index LlamaModel::vocabulary() const { return llama_vocab_n_tokens(state_->vocabulary); }

std::vector<std::int32_t> LlamaModel::encode(const std::string& text) const {
    if (text.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        program::fail("{}: the text has {} bytes; at most 2^31 - 1 can be encoded", file_, text.size());
    const auto length = static_cast<std::int32_t>(text.size());
    const auto encode = [&](std::vector<std::int32_t>& ids) {
        return llama_tokenize(state_->vocabulary, text.data(), length, ids.data(),
                              static_cast<std::int32_t>(ids.size()), true, false);
    };
    std::vector<std::int32_t> ids;
    const std::int32_t needed = encode(ids); // minus the count
    if (needed >= 0) return ids;
    if (needed == std::numeric_limits<std::int32_t>::min())
        program::fail("{}: its tokenizer does not encode the text", file_);
    ids.resize(static_cast<std::size_t>(-needed));
    if (encode(ids) != -needed) program::fail("{}: its tokenizer does not encode the text", file_);
    return ids;
}

std::vector<std::string> LlamaModel::texts_of(std::span<const std::int32_t> ids) const {
    std::vector<std::string> texts;
    for (const std::int32_t id : ids) {
        if (id < 0 || id >= vocabulary()) program::fail("{}: it has no token {}", file_, id);
        std::string text(64, '\0');
        const auto write = [&] {
            return llama_token_to_piece(state_->vocabulary, id, text.data(),
                                        static_cast<std::int32_t>(text.size()), 0, true);
        };
        std::int32_t length = write(); // minus what it takes, where that is more
        if (length < 0) {
            text.resize(static_cast<std::size_t>(-length));
            length = write();
        }
        text.resize(static_cast<std::size_t>(std::max(length, 0)));
        texts.push_back(std::move(text));
    }
    return texts;
}

namespace {

void check_prompt(const LlamaModel& model, std::span<const std::int32_t> ids) {
    const Index n = static_cast<Index>(ids.size());
    if (n < 1 || n > model.context())
        program::fail("{}: tokens of a prompt: expected 1 to {}, found {}", model.file(), model.context(), n);
    for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= model.vocabulary())
            program::fail("{}: token {}: expected an id from 0 to {}, found {}", model.file(), i,
                          model.vocabulary() - 1, ids[i]);
}

} // namespace

std::vector<LlamaLayer> LlamaModel::survey(std::span<const std::int32_t> ids, Index threads) const {
    check_prompt(*this, ids);
    std::map<Index, LlamaLayer> found = Decoding(file_, state_->model.get(), ids, threads).survey(true);
    // Several backends: what the second one computes comes to sight after the first one's part.
    if (static_cast<Index>(found.size()) < layers())
        found = Decoding(file_, state_->model.get(), ids, threads).survey(false);
    std::vector<LlamaLayer> result;
    for (auto& [number, layer] : found) {
        if (layer.heads == 0 || layer.value_width == 0)
            program::fail("{}: layer {} has products of attention without kq_soft_max or kqv", file_, number);
        result.push_back(std::move(layer));
    }
    if (result.empty())
        program::fail("{}: no layer has softmax attention (no node kq_soft_max-0, ... was seen)", file_);
    return result;
}

double LlamaModel::run(std::span<const std::int32_t> ids, const LlamaRun& options) const {
    check_prompt(*this, ids);
    Decoding decoding(file_, state_->model.get(), ids, options.threads);
    decoding.run(options);
    if (!options.loss || ids.size() < 2) return std::numeric_limits<double>::quiet_NaN();
    double sum = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const float* const logits = llama_get_logits_ith(decoding.context(), static_cast<std::int32_t>(i));
        if (!logits) program::fail("{}: llama.cpp has no logits of token {}", file_, i);
        const attnscope::RowIn<float> row(logits, static_cast<std::size_t>(vocabulary()));
        // What llama.cpp gives of a model whose graph ends without logits.
        if (std::all_of(row.begin(), row.end(), [](float x) { return x == 0; }))
            return std::numeric_limits<double>::quiet_NaN();
        sum += static_cast<double>(attnscope::row_statistics<float>(row).log_sum_exp()) -
               static_cast<double>(row[static_cast<std::size_t>(ids[i + 1])]);
    }
    return sum / static_cast<double>(ids.size() - 1);
}

} // namespace models

#else

namespace models {

struct LlamaModel::State {};

bool LlamaModel::available() { return false; }
LlamaModel::LlamaModel(const std::string& file) {
    program::fail(
        "{}: GGUF needs llama.cpp, which was not there when this program was built: install libllama-dev "
        "(Debian "
        "sid), or llama.cpp's own \"cmake --install\", and build again; or save a capture from PyTorch "
        "(docs/report.md)",
        file);
}
LlamaModel::~LlamaModel() = default;
LlamaModel::LlamaModel(LlamaModel&&) noexcept = default;
LlamaModel& LlamaModel::operator=(LlamaModel&&) noexcept = default;
std::string LlamaModel::description() const { return {}; }
Index LlamaModel::layers() const { return 0; }
Index LlamaModel::context() const { return 0; }
Index LlamaModel::vocabulary() const { return 0; }
std::vector<std::int32_t> LlamaModel::encode(const std::string&) const { return {}; }
std::vector<std::string> LlamaModel::texts_of(std::span<const std::int32_t>) const { return {}; }
std::vector<LlamaLayer> LlamaModel::survey(std::span<const std::int32_t>, Index) const { return {}; }
double LlamaModel::run(std::span<const std::int32_t>, const LlamaRun&) const {
    return std::numeric_limits<double>::quiet_NaN();
}

} // namespace models

#endif
