// The only file that knows Python: pointers, sizes and a stream come in as integers, an error code goes out.
#include <pybind11/pybind11.h>

#include <vector>

#define MEMOFAST_VARIANT host

#include "attention.h"
#include "bias_gelu.h"
#include "dropout_add_norm.h"
#include "embed.h"
#include "host/batch_memory.h"
#include "host/gather.h"
#include "host/huge_pages.h"
#include "rows/philox.h"
#include "span_mask.h"
#include "token_mask.h"
#include "variant.h"

namespace py = pybind11;
using namespace memofast;

namespace {

const char* isa_name() {
    switch (isa()) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
        default: return "portable";
    }
}

template <class T>
T* at(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

using Address = std::uintptr_t;

#ifdef MEMOFAST_WITH_CUDA
#define MEMOFAST_CUDA_CALL(name, ...) cuda::name(__VA_ARGS__)
#else
#define MEMOFAST_CUDA_CALL(name, ...) kNotBuilt
#endif

// The masks of the CPU return the number of targets, or a negative status, and list_targets lists them; those of the GPU do both.
void bind_masks(py::module_& m) {
    m.def("span_mask",
          [](Address offsets, Address sample_keys, Address rng, Address selected, int64_t samples, int64_t rows,
             Address source, int kind, int numerator, int denominator, int length, bool dice, bool original,
             uint32_t purpose, uint32_t site, bool on_cuda, Address indices, Address count, Address overflow,
             int64_t capacity, Address sample_counts, Address stream) -> int64_t {
              const SpanMaskArguments a{
                  {at<const int32_t>(offsets), at<const int64_t>(sample_keys), at<const int64_t>(rng),
                   at<const bool>(selected), samples, rows, purpose, site},
                  {SpanKind(kind), numerator, denominator, length, dice, original},
                  at<int32_t>(source)};
              [[maybe_unused]] const TargetList list{at<int32_t>(indices), at<int32_t>(count), at<int32_t>(overflow),
                                                     capacity, at<int32_t>(sample_counts)};
              py::gil_scoped_release release;
              return on_cuda ? MEMOFAST_CUDA_CALL(span_mask, a, list, at<void>(stream)) : MEMOFAST_DISPATCH(span_mask, a);
          });
    m.def("token_mask",
          [](Address offsets, Address sample_keys, Address rng, Address selected, int64_t samples, int64_t rows,
             Address token_ids, Address word_ids, Address emotion, Address seen, Address labels, int kind, int numerator,
             int denominator, int emotion_numerator, int emotion_denominator, bool at_least_one, int mask_id,
             int random_low, int random_high, uint32_t purpose, uint32_t site, bool on_cuda, Address indices,
             Address count, Address overflow, int64_t capacity, Address sample_counts, Address stream) -> int64_t {
              const TokenMaskArguments a{
                  {at<const int32_t>(offsets), at<const int64_t>(sample_keys), at<const int64_t>(rng),
                   at<const bool>(selected), samples, rows, purpose, site},
                  {TokenKind(kind), numerator, denominator, emotion_numerator, emotion_denominator, at_least_one, mask_id,
                   random_low, random_high},
                  at<const int32_t>(token_ids), at<const int32_t>(word_ids), at<const int32_t>(emotion),
                  at<int32_t>(seen), at<int32_t>(labels)};
              [[maybe_unused]] const TargetList list{at<int32_t>(indices), at<int32_t>(count), at<int32_t>(overflow),
                                                     capacity, at<int32_t>(sample_counts)};
              py::gil_scoped_release release;
              return on_cuda ? MEMOFAST_CUDA_CALL(token_mask, a, list, at<void>(stream)) : MEMOFAST_DISPATCH(token_mask, a);
          });
    m.def("list_targets", [](Address values, int64_t rows, bool negative, Address indices, Address count,
                             Address overflow, int64_t capacity) -> int {
        const MaskedValues masked{at<int32_t>(values), rows, negative};
        const TargetList list{at<int32_t>(indices), at<int32_t>(count), at<int32_t>(overflow), capacity, nullptr};
        py::gil_scoped_release release;
        return MEMOFAST_DISPATCH(list_targets, masked, list);
    });
    m.def("stream_key", [](int64_t seed, int64_t step, uint32_t purpose, uint32_t site) {
        const int64_t rng[2] = {seed, step};
        const auto key = host::stream_key(rng, purpose, site);
        return py::make_tuple(key.low, key.high);
    });
    m.def("philox", [](uint32_t low, uint32_t high, int64_t sample_key, uint32_t position, uint32_t block) {
        const auto words = host::draw({low, high}, sample_key, position, block);
        py::list lanes;
        for (int lane = 0; lane < 8; ++lane) lanes.append(host::lane16(words, lane));
        return py::make_tuple(words.word[0], words.word[1], words.word[2], words.word[3], lanes);
    });
    m.def("below", [](uint32_t word, uint32_t n) { return host::below(word, n); });
}

void bind_attention(py::module_& m) {
    m.def("attention", [](bool backward, Address qkv, Address grad, Address out, Address lse, Address offsets, Address lengths,
                          Address rng, Address sample_keys, int64_t rows, int64_t samples, int64_t heads, int64_t width,
                          uint32_t site, uint32_t threshold, float keep_scale, float scale, int type, Address saved,
                          int64_t longest, bool on_cuda, Address stream) -> int {
        const AttentionArguments a{
            at<const void>(qkv), at<const void>(grad), at<void>(out), at<float>(lse),
            at<const int32_t>(offsets), at<const int32_t>(lengths), at<const int64_t>(rng), at<const int64_t>(sample_keys),
            rows, samples, heads, width, site, threshold, keep_scale, scale, Type(type), at<const void>(saved), longest};
        py::gil_scoped_release release;
        if (on_cuda)
            return backward ? MEMOFAST_CUDA_CALL(attention_backward, a, at<void>(stream))
                            : MEMOFAST_CUDA_CALL(attention_forward, a, at<void>(stream));
        return backward ? MEMOFAST_DISPATCH(attention_backward, a) : MEMOFAST_DISPATCH(attention_forward, a);
    });
}

// The buffer under the tensors of one batch; goes back to the pool when the last of them is gone.
class BatchBuffer {
public:
    explicit BatchBuffer(size_t size) : memory_(take_batch_memory(size)) {
        if (!memory_.data) throw std::bad_alloc();
    }
    BatchBuffer(const BatchBuffer&) = delete;
    ~BatchBuffer() { give_batch_memory_back(memory_); }
    py::buffer_info info() const { return {static_cast<uint8_t*>(memory_.data), py::ssize_t(memory_.size), false}; }

private:
    BatchMemory memory_;
};

// What of each buffer in a list; the buffers stay valid as long as what they point into does, here a memory map.
template <class Field>
py::list of_buffers(const py::list& buffers, Field field) {
    py::list result(buffers.size());
    for (size_t i = 0; i < buffers.size(); ++i) {
        Py_buffer view;
        if (PyObject_GetBuffer(buffers[i].ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
        result[i] = field(view);
        PyBuffer_Release(&view);
    }
    return result;
}

// columns: (name, width, padded width, type, address); the rest: addresses of int64 arrays of `count` values.
int64_t gather(Address records, Address sizes, Address rows, Address first_row, int64_t count, const py::list& columns) {
    std::vector<GatherColumn> wanted;
    for (const py::handle column : columns) {
        const auto [name, width, padded, type, out] = column.cast<std::tuple<int, int64_t, int64_t, int, Address>>();
        wanted.push_back({name, width, padded, RecordType(type), at<void>(out)});
    }
    const py::gil_scoped_release release;
    return gather_records({at<const uint8_t* const>(records), at<const int64_t>(sizes), at<const int64_t>(rows),
                           at<const int64_t>(first_row), count, wanted.data(), int(wanted.size())});
}

void bind_store(py::module_& m) {
    py::class_<BatchBuffer>(m, "BatchBuffer", py::buffer_protocol())
        .def(py::init<size_t>())
        .def_buffer(&BatchBuffer::info);
    m.def("idle_batch_memory", &idle_batch_memory);
    m.def("buffer_addresses", [](const py::list& buffers) {
        return of_buffers(buffers, [](const Py_buffer& view) { return reinterpret_cast<Address>(view.buf); });
    });
    m.def("buffer_sizes", [](const py::list& buffers) {
        return of_buffers(buffers, [](const Py_buffer& view) { return int64_t(view.len); });
    });
    m.def("gather_records", &gather);
    m.def("advise_huge_pages", [](std::uintptr_t data, size_t size) { advise_huge_pages(reinterpret_cast<void*>(data), size); });
    m.def("set_calling_thread_parallelism", &set_calling_thread_parallelism);
}

// Addresses in the order of EmbedModality's pointers.
EmbedModality embed_modality(const py::tuple& addresses, int64_t rows, int64_t contents, int64_t positions) {
    int next = 0;
    const auto take = [&] { return addresses[next++].cast<std::uintptr_t>(); };
    EmbedModality m{};
    m.offsets = at<const int32_t>(take());
    m.index = at<const int32_t>(take());
    m.content = at<const void>(take());
    m.mask = at<const void>(take());
    for (const float** table : {&m.position, &m.type, &m.feature_gamma, &m.feature_beta, &m.gamma, &m.beta})
        *table = at<const float>(take());
    m.rows = rows, m.contents = contents, m.positions = positions;
    m.grad_content = at<void>(take());
    m.grad_mask = at<void>(take());
    m.order = at<const int64_t>(take());
    for (float** gradient : {&m.grad_position, &m.grad_type, &m.grad_feature_gamma, &m.grad_feature_beta, &m.grad_gamma, &m.grad_beta})
        *gradient = at<float>(take());
    return m;
}

void bind_embed(py::module_& m) {
    using Address = std::uintptr_t;
    py::class_<EmbedModality>(m, "EmbedModality").def(py::init(&embed_modality)).def(py::init<>());
    m.def("embed", [](bool backward, const EmbedModality& text, const EmbedModality& visual, const EmbedModality& speech,
                      Address offsets, Address rng, Address sample_keys, Address grad, Address out, Address statistics,
                      int64_t rows, int64_t samples, int64_t width, uint32_t site, uint32_t threshold, float keep_scale,
                      float eps, int type, int word_type, Address workspace, bool on_cuda, Address stream) -> int {
        const EmbedArguments a{{text, visual, speech}, at<const int32_t>(offsets), at<const int64_t>(rng),
                               at<const int64_t>(sample_keys), at<const void>(grad), at<void>(out), at<float>(statistics),
                               rows, samples, width, site, threshold, keep_scale, eps, Type(type), Type(word_type),
                               at<float>(workspace)};
        py::gil_scoped_release release;
        if (on_cuda)
            return backward ? MEMOFAST_CUDA_CALL(embed_backward, a, at<void>(stream))
                            : MEMOFAST_CUDA_CALL(embed_forward, a, at<void>(stream));
        return backward ? MEMOFAST_DISPATCH(embed_backward, a) : MEMOFAST_DISPATCH(embed_forward, a);
    });
    m.def("embed_workspace", [](const EmbedModality& text, const EmbedModality& visual, const EmbedModality& speech, int64_t width) {
        EmbedArguments a{{text, visual, speech}};
        a.width = width;
        return EmbedWorkspace(a).floats;
    });
}

void bind_rows(py::module_& m) {
    using Address = std::uintptr_t;
    m.def("dropout_add_norm", [](Address x, Address residual, Address gamma, Address beta, Address bias, Address rng,
                                 Address sample_keys, Address offsets, Address out, Address statistics, int64_t rows, int width,
                                 int samples, int type, int bias_type, uint32_t site, uint32_t threshold, float scale, float eps,
                                 bool on_cuda, Address stream) -> int {
        const DropoutAddNormArguments a{
            at<void>(x), at<void>(residual), at<float>(gamma), at<float>(beta), at<void>(bias), at<float>(statistics),
            at<int64_t>(rng), at<int64_t>(sample_keys), at<int32_t>(offsets), rows, width, samples, Type(type), Type(bias_type),
            site, threshold, scale, eps, at<void>(out), nullptr, nullptr, nullptr, nullptr, nullptr};
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(dropout_add_norm, a, at<void>(stream)) : MEMOFAST_DISPATCH(dropout_add_norm, a);
    });
    m.def("dropout_add_norm_backward",
          [](Address grad, Address x, Address residual, Address gamma, Address bias, Address statistics, Address rng,
             Address sample_keys, Address offsets, Address grad_x, Address grad_residual, Address partials, Address sums,
             int64_t rows, int width, int samples, int type, int bias_type, uint32_t site, uint32_t threshold, float scale,
             float eps, bool on_cuda, Address stream) -> int {
        const DropoutAddNormArguments a{
            at<void>(x), at<void>(residual), at<float>(gamma), nullptr, at<void>(bias), at<float>(statistics), at<int64_t>(rng),
            at<int64_t>(sample_keys), at<int32_t>(offsets), rows, width, samples, Type(type), Type(bias_type), site, threshold,
            scale, eps, nullptr, at<void>(grad), at<void>(grad_x), at<void>(grad_residual), at<float>(partials), at<float>(sums)};
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(dropout_add_norm_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(dropout_add_norm_backward, a);
    });
    m.def("bias_gelu", [](Address x, Address bias, Address out, int64_t rows, int width, int type, int bias_type, bool on_cuda,
                          Address stream) -> int {
        const BiasGeluArguments a{at<void>(x), at<void>(bias), rows, width, Type(type), Type(bias_type), at<void>(out),
                                  nullptr, nullptr, nullptr, nullptr};
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(bias_gelu, a, at<void>(stream)) : MEMOFAST_DISPATCH(bias_gelu, a);
    });
    m.def("bias_gelu_backward", [](Address grad, Address x, Address bias, Address grad_x, Address partials, Address grad_bias,
                                   int64_t rows, int width, int type, int bias_type, bool on_cuda, Address stream) -> int {
        const BiasGeluArguments a{at<void>(x), at<void>(bias), rows, width, Type(type), Type(bias_type), nullptr,
                                  at<void>(grad), at<void>(grad_x), at<float>(partials), at<float>(grad_bias)};
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(bias_gelu_backward, a, at<void>(stream)) : MEMOFAST_DISPATCH(bias_gelu_backward, a);
    });
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "memofast's kernels; call them through memofast.ops.";
    m.attr("source_digest") = MEMOFAST_SOURCE_DIGEST;
    m.attr("compiler") = MEMOFAST_COMPILER;
    m.attr("cuda_version") = MEMOFAST_CUDA_VERSION;
    m.attr("cuda_archs") = MEMOFAST_CUDA_ARCHS;
    m.attr("isa") = isa_name();
    bind_masks(m);
    bind_rows(m);
    bind_attention(m);
    bind_embed(m);
    bind_store(m);
}
