// The only file that knows Python: pointers, sizes and a stream come in as integers, an error code goes out.
#include <pybind11/pybind11.h>

#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#define MEMOFAST_VARIANT host

#include "attention.h"
#include "bias_gelu.h"
#include "device.h"
#include "dropout_add_norm.h"
#include "embed.h"
#include "host/batch_memory.h"
#include "host/embed_operands.h"
#include "host/gather.h"
#include "host/huge_pages.h"
#include "host/pages.h"
#include "host/tensor.h"
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

// MEMOFAST_CUDA_CALL(tensor, f, arguments) calls f on the device of a tensor, whichever is the current one.
#ifdef MEMOFAST_WITH_CUDA
template <class Call>
int on_device_of(const Tensor& tensor, Call call) {
    const cuda::CurrentDevice device(tensor.device_number());
    return device.status() ? device.status() : call();
}
#define MEMOFAST_CUDA_CALL(tensor, name, ...) on_device_of(tensor, [&] { return cuda::name(__VA_ARGS__); })
#else
#define MEMOFAST_CUDA_CALL(tensor, name, ...) kNotBuilt
#endif

const ExchangeInterface* find_exchange() {
    const py::object tensor = py::module_::import("torch").attr("Tensor");
    const py::object capsule = py::getattr(tensor, "__dlpack_c_exchange_api__", py::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
    return understood(
        static_cast<const ExchangeInterface*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api")));
}

// What the exchange interface shows, asked attribute by attribute, as a PyTorch that lacks the interface needs.
Tensor tensor_by_attributes(const py::handle& object) {
    static const char* const names[] = {
        "torch.float32", "torch.bfloat16", "torch.float16", "torch.int32", "torch.int64"};
    Tensor tensor;
    tensor.data = at<void>(object.attr("data_ptr")().cast<Address>());
    const auto type = py::str(object.attr("dtype")).cast<std::string>();
    for (int i = 0; i < int(Element::other); ++i)
        if (type == names[i]) tensor.element = Element(i);
    const py::object device = object.attr("device"), number = device.attr("index");
    tensor.device = int64_t(device.attr("type").cast<std::string>() == "cpu" ? 1 : 2) << 32;
    if (!number.is_none()) tensor.device |= number.cast<uint32_t>();
    tensor.contiguous = object.attr("is_contiguous")().cast<bool>();
    const py::tuple sizes = object.attr("shape");
    tensor.dimensions = int(sizes.size());
    for (int i = 0; i < tensor.dimensions && i < Tensor::kMostDimensions; ++i)
        tensor.size[i] = sizes[i].cast<int64_t>();
    return tensor;
}

// None is no tensor; one without memory of its own, as a tracer's, fits nothing.
Tensor tensor_of(const py::handle& object) {
    static const ExchangeInterface* exchange = nullptr;
    // not a static's initialiser: those wait for one another without giving up Python's lock
    static bool sought = false;
    if (object.is_none()) return {};
    if (!sought) exchange = find_exchange(), sought = true;
    if (!exchange) return tensor_by_attributes(object);
    ExchangedTensor shown;
    if (exchange->show(object.ptr(), &shown) == 0) return tensor_of(shown);
    PyErr_Clear();
    Tensor unreadable;
    unreadable.dimensions = 0;
    return unreadable;
}

// [rows, width] of a type that kernels compute in.
bool is_rows(const Tensor& x, bool allow_float16) {
    return x.contiguous && x.dimensions == 2 &&
        (x.element < Element::float16 || (allow_float16 && x.element == Element::float16));
}

bool is_bias(const Tensor& bias, const Tensor& x) {
    return bias.is_vector(Element::float32, x.size[1]) || bias.is_vector(x.element, x.size[1]);
}

bool same_rows(const Tensor& one, const Tensor& other) {
    return one.device == other.device && one.is_table(other.element, other.size[1]) && one.size[0] == other.size[0];
}

void bind_faults(py::module_& m) {
    m.def("cuda_error", [](int status) -> std::string {
#ifdef MEMOFAST_WITH_CUDA
        return std::string(cuda::error_name(status)) + ": " + cuda::error_text(status);
#else
        return "CUDA error " + std::to_string(status);
#endif
    });
}

void bind_tensors(py::module_& m) {
    m.def("describe_tensor", [](const py::object& object, bool by_attributes) {
        const Tensor tensor = by_attributes ? tensor_by_attributes(object) : tensor_of(object);
        py::list sizes;
        for (int i = 0; i < tensor.dimensions && i < Tensor::kMostDimensions; ++i) sizes.append(tensor.size[i]);
        return py::make_tuple(Address(tensor.data), int(tensor.element), tensor.device, sizes, tensor.contiguous);
    });
}

// An integer of a Python named tuple. Its name is kept, as making one costs more than looking it up.
class Field {
public:
    explicit Field(const char* name) : name_(PyUnicode_InternFromString(name)) {}

    template <class T>
    void read(const py::handle& tuple, T& field) const {
        const auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(tuple.ptr(), name_));
        const long long number = value ? PyLong_AsLongLong(value.ptr()) : -1;
        if (number == -1 && PyErr_Occurred()) throw py::error_already_set();
        field = T(number);
    }

private:
    PyObject* name_;
};

// Sets STRUCTURE.NAME to what the named tuple has under that name.
#define MEMOFAST_READ(structure, name, tuple)       \
    do {                                            \
        static const Field field(#name);            \
        field.read(tuple, (structure).name);        \
    } while (false)

SpanPolicy span_policy(const py::handle& parameters) {
    SpanPolicy policy{};
    MEMOFAST_READ(policy, kind, parameters);
    MEMOFAST_READ(policy, numerator, parameters);
    MEMOFAST_READ(policy, denominator, parameters);
    MEMOFAST_READ(policy, length, parameters);
    MEMOFAST_READ(policy, dice, parameters);
    MEMOFAST_READ(policy, original, parameters);
    return policy;
}

TokenPolicy token_policy(const py::handle& parameters) {
    TokenPolicy policy{};
    MEMOFAST_READ(policy, kind, parameters);
    MEMOFAST_READ(policy, numerator, parameters);
    MEMOFAST_READ(policy, denominator, parameters);
    MEMOFAST_READ(policy, emotion_numerator, parameters);
    MEMOFAST_READ(policy, emotion_denominator, parameters);
    MEMOFAST_READ(policy, at_least_one, parameters);
    MEMOFAST_READ(policy, mask_id, parameters);
    MEMOFAST_READ(policy, random_low, parameters);
    MEMOFAST_READ(policy, random_high, parameters);
    return policy;
}

// What both masks are given; `parameters` is a SpanParameters or a TokenParameters of memofast/ops.
struct MaskOperands {
    Tensor offsets, sample_keys, rng, selected;
    py::handle parameters;

    MaskOperands(const py::object& offsets, const py::object& sample_keys, const py::object& rng,
                 const py::object& selected, const py::object& parameters)
        : offsets(tensor_of(offsets)), sample_keys(tensor_of(sample_keys)), rng(tensor_of(rng)),
          selected(tensor_of(selected)), parameters(parameters) {}

    // Whether the kernels can read them as they are.
    bool fit() const {
        const int64_t samples = sample_keys.size[0];
        for (const Tensor* other : {&sample_keys, &rng, &selected})
            if (*other && other->device != offsets.device) return false;
        if (selected && !(selected.contiguous && selected.dimensions == 1 && selected.size[0] == samples)) return false;
        return sample_keys.is_vector(Element::int64, samples) && offsets.is_vector(Element::int32, samples + 1) &&
            rng.is_vector(Element::int64, 2);
    }

    // Whether this is a number for each of so many rows.
    bool fits(const Tensor& values, int64_t rows) const {
        return values.device == offsets.device && values.is_vector(Element::int32, rows);
    }

    MaskedBatch batch(int64_t rows) const {
        MaskedBatch b{};
        b.offsets = offsets.as<int32_t>(), b.sample_keys = sample_keys.as<int64_t>(), b.rng = rng.as<int64_t>();
        b.selected = selected.as<bool>(), b.samples = sample_keys.size[0], b.rows = rows;
        MEMOFAST_READ(b, purpose, parameters);
        MEMOFAST_READ(b, site, parameters);
        return b;
    }
};

// False where the kernels cannot read the operands as they are.
bool span_mask_arguments(const MaskOperands& operands, const py::object& source, SpanMaskArguments& a) {
    const Tensor rows = tensor_of(source);
    if (!operands.fit() || !operands.fits(rows, rows.size[0])) return false;
    a.batch = operands.batch(rows.size[0]), a.policy = span_policy(operands.parameters), a.source = rows.as<int32_t>();
    return true;
}

// The same; `emotion` may be None.
bool token_mask_arguments(const MaskOperands& operands, const py::object& token_ids, const py::object& word_ids,
                          const py::object& emotion, const py::object& seen, const py::object& labels,
                          TokenMaskArguments& a) {
    const Tensor ids = tensor_of(token_ids), words = tensor_of(word_ids), classes = tensor_of(emotion),
                 read = tensor_of(seen), targets = tensor_of(labels);
    const int64_t rows = ids.size[0];
    if (!operands.fit()) return false;
    for (const Tensor* values : {&ids, &words, &read, &targets})
        if (!operands.fits(*values, rows)) return false;
    if (classes && !operands.fits(classes, rows)) return false;
    a.batch = operands.batch(rows), a.policy = token_policy(operands.parameters);
    a.token_ids = ids.as<int32_t>(), a.word_ids = words.as<int32_t>(), a.emotion = classes.as<int32_t>();
    a.seen = read.as<int32_t>(), a.labels = targets.as<int32_t>();
    return true;
}

// Where targets are listed; `workspace` is of a GPU, with a number for each sample.
TargetList target_list(const py::object& indices, const py::object& count, const py::object& overflow,
                       const py::object& workspace) {
    const Tensor entries = tensor_of(indices);
    TargetList list{};
    list.indices = entries.as<int32_t>(), list.capacity = entries.size[0];
    list.count = tensor_of(count).as<int32_t>(), list.overflow = tensor_of(overflow).as<int32_t>();
    list.sample_counts = tensor_of(workspace).as<int32_t>();
    return list;
}

// The masks of the CPU return the number of targets, or a negative status, and list_targets lists them;
// those of the GPU do both.
void bind_masks(py::module_& m) {
    using Object = const py::object&;
    m.def("span_mask", [](Object offsets, Object sample_keys, Object rng, Object selected, Object source,
                          Object parameters) -> int64_t {
        SpanMaskArguments a{};
        if (!span_mask_arguments({offsets, sample_keys, rng, selected, parameters}, source, a)) return kNotAsNeeded;
        py::gil_scoped_release release;
        return MEMOFAST_DISPATCH(span_mask, a);
    });
    m.def("span_mask_on_cuda", [](Object offsets, Object sample_keys, Object rng, Object selected, Object source,
                                  Object parameters, Object indices, Object count, Object overflow, Object workspace,
                                  [[maybe_unused]] Address stream) -> int {
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        SpanMaskArguments a{};
        if (!span_mask_arguments(operands, source, a)) return kNotAsNeeded;
        [[maybe_unused]] const TargetList list = target_list(indices, count, overflow, workspace);
        py::gil_scoped_release release;
        return MEMOFAST_CUDA_CALL(operands.offsets, span_mask, a, list, at<void>(stream));
    });
    m.def("token_mask", [](Object token_ids, Object word_ids, Object offsets, Object sample_keys, Object rng,
                           Object emotion, Object selected, Object seen, Object labels, Object parameters) -> int64_t {
        TokenMaskArguments a{};
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        if (!token_mask_arguments(operands, token_ids, word_ids, emotion, seen, labels, a)) return kNotAsNeeded;
        py::gil_scoped_release release;
        return MEMOFAST_DISPATCH(token_mask, a);
    });
    m.def("token_mask_on_cuda",
          [](Object token_ids, Object word_ids, Object offsets, Object sample_keys, Object rng, Object emotion,
             Object selected, Object seen, Object labels, Object parameters, Object indices, Object count,
             Object overflow, Object workspace, [[maybe_unused]] Address stream) -> int {
        TokenMaskArguments a{};
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        if (!token_mask_arguments(operands, token_ids, word_ids, emotion, seen, labels, a)) return kNotAsNeeded;
        [[maybe_unused]] const TargetList list = target_list(indices, count, overflow, workspace);
        py::gil_scoped_release release;
        return MEMOFAST_CUDA_CALL(operands.offsets, token_mask, a, list, at<void>(stream));
    });
    m.def("list_targets", [](Object values, bool negative, Object indices, Object count, Object overflow) -> int {
        const Tensor written = tensor_of(values);
        const MaskedValues masked{written.as<int32_t>(), written.size[0], negative};
        const TargetList list = target_list(indices, count, overflow, py::none());
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
    m.def("sample_words", [](Object rng, uint32_t purpose, uint32_t site, Object sample_keys, Object out) {
        const Tensor keys = tensor_of(sample_keys), words = tensor_of(out);
        const auto key = host::stream_key(tensor_of(rng).as<int64_t>(), purpose, site);
        for (int64_t sample = 0; sample < keys.size[0]; ++sample) {
            const auto drawn = host::draw(key, keys.as<int64_t>()[sample], 0, 0);
            for (int word = 0; word < 4; ++word) words.as<int64_t>()[4 * sample + word] = drawn.word[word];
        }
    });
    m.def("below", [](uint32_t word, uint32_t n) { return host::below(word, n); });
}

// qkv, kv, query_offsets, offsets, lengths, rng, sample_keys; with kv and query_offsets, qkv holds queries alone.
struct AttentionOperands {
    Tensor qkv, kv, query_offsets, offsets, lengths, rng, sample_keys;

    explicit AttentionOperands(const py::tuple& tensors)
        : qkv(tensor_of(tensors[0])), kv(tensor_of(tensors[1])), query_offsets(tensor_of(tensors[2])),
          offsets(tensor_of(tensors[3])), lengths(tensor_of(tensors[4])), rng(tensor_of(tensors[5])),
          sample_keys(tensor_of(tensors[6])) {}

    const Tensor& keys() const { return kv ? kv : qkv; }
    int64_t heads() const { return keys().size[2]; }
    int64_t width() const { return keys().size[3]; }

    // Whether the kernels can read them as they are.
    bool fit(bool dropout, bool allow_float16) const {
        const int64_t samples = offsets.size[0] - 1;
        for (const Tensor* other : {&kv, &query_offsets, &offsets, &lengths, &rng, &sample_keys})
            if (*other && other->device != qkv.device) return false;
        if (!qkv.contiguous || qkv.element > Element::float16 || (qkv.element == Element::float16 && !allow_float16))
            return false;
        if (keys().dimensions != 4 || keys().size[1] != (kv ? 2 : 3) || !heads() || !width() || width() % 8)
            return false;
        if (kv &&
            !(kv.contiguous && kv.element == qkv.element && qkv.dimensions == 3 && qkv.size[1] == heads() &&
              qkv.size[2] == width()))
            return false;
        if (!offsets.is_vector(Element::int32, samples + 1) || samples < 0) return false;
        if (bool(kv) != bool(query_offsets) || (kv && !query_offsets.is_vector(Element::int32, samples + 1)))
            return false;
        if (lengths && !lengths.is_vector(Element::int32, samples)) return false;
        return !dropout ||
            (heads() < 1 << 16 && rng.is_vector(Element::int64, 2) && sample_keys.is_vector(Element::int64, samples));
    }

    AttentionArguments arguments() const {
        AttentionArguments a{};
        a.rows = keys().size[0], a.queries = qkv.size[0], a.samples = offsets.size[0] - 1;
        a.heads = heads(), a.width = width();
        a.type = Type(qkv.element);
        a.q_step = (kv ? 1 : 3) * a.heads * a.width, a.kv_step = (kv ? 2 : 3) * a.heads * a.width;
        a.q = qkv.data, a.kv = keys_in(qkv.data, kv.data);
        a.offsets = offsets.as<int32_t>(), a.lengths = lengths.as<int32_t>();
        a.query_offsets = query_offsets.as<int32_t>();
        a.rng = rng.as<int64_t>(), a.sample_keys = sample_keys.as<int64_t>();
        return a;
    }

    // Where the keys begin: in a tensor of their own, or behind the first row's queries.
    void* keys_in(void* of_qkv, void* of_kv) const {
        const int64_t bytes = heads() * width() * (qkv.element == Element::float32 ? 4 : 2);
        return kv || !of_qkv ? of_kv : static_cast<char*>(of_qkv) + bytes;
    }
};

void bind_attention(py::module_& m) {
    m.def("attention_fits", [](const py::tuple& tensors, bool dropout, bool allow_float16) {
        return AttentionOperands(tensors).fit(dropout, allow_float16);
    });
    m.def("attention",
          [](const py::tuple& tensors, const py::object& out, const py::object& lse, uint32_t site, uint32_t threshold,
             float keep_scale, float scale, int64_t longest, bool on_cuda, Address stream) -> int {
        const AttentionOperands operands(tensors);
        if (!operands.fit(threshold > 0, on_cuda)) return kNotAsNeeded;
        AttentionArguments a = operands.arguments();
        a.out = tensor_of(out).data, a.lse = tensor_of(lse).as<float>();
        a.site = site, a.threshold = threshold, a.keep_scale = keep_scale, a.scale = scale, a.longest = longest;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.qkv, attention_forward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(attention_forward, a);
    });
    m.def("attention_backward",
          [](const py::tuple& tensors, const py::object& grad, const py::object& out, const py::object& lse,
             const py::object& grad_qkv, const py::object& grad_kv, uint32_t site, uint32_t threshold, float keep_scale,
             float scale, int64_t longest, bool on_cuda, Address stream) -> int {
        const AttentionOperands operands(tensors);
        if (!operands.fit(threshold > 0, on_cuda)) return kNotAsNeeded;
        AttentionArguments a = operands.arguments();
        a.grad = tensor_of(grad).data, a.saved = tensor_of(out).data, a.lse = tensor_of(lse).as<float>();
        a.grad_q = tensor_of(grad_qkv).data, a.grad_kv = operands.keys_in(a.grad_q, tensor_of(grad_kv).data);
        a.site = site, a.threshold = threshold, a.keep_scale = keep_scale, a.scale = scale, a.longest = longest;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.qkv, attention_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(attention_backward, a);
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

using TreeNumbers = std::tuple<Address, int64_t, int64_t, uint64_t, int>;  // as in PageTree

PageTree tree_of(const TreeNumbers& numbers) {
    const auto [map, bytes, page_size, root, depth] = numbers;
    return {at<const uint8_t>(map), bytes, page_size, root, depth};
}

// The keys of a tree, each with its value: int64 [n, 4], offset and size of both; None where the tree is unsound.
py::object entries(const TreeNumbers& numbers, bool sorted) {
    std::vector<Entry> found;
    bool sound;
    {
        const py::gil_scoped_release release;
        sound = list_entries(tree_of(numbers), sorted, &found);
    }
    if (!sound) return py::none();
    return py::bytes(reinterpret_cast<const char*>(found.data()), found.size() * sizeof(Entry));
}

// out: address of int64 [n, 2], offset and size of each key's value; see find_value.
void values(const TreeNumbers& numbers, const py::list& keys, Address out) {
    std::vector<std::string_view> wanted;
    for (const py::handle key : keys) wanted.push_back(key.cast<std::string_view>());
    const PageTree tree = tree_of(numbers);
    Extent* found = at<Extent>(out);
    const py::gil_scoped_release release;
    for (const std::string_view key : wanted) *found++ = find_value(tree, key);
}

// columns: (name, width, padded width, type, address); the rest: addresses of int64 arrays of `count` values.
int64_t gather(Address records, Address sizes, Address rows, Address first_row, int64_t count,
               const py::list& columns) {
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
    m.def("list_entries", &entries);
    m.def("find_values", &values);
    m.def("gather_records", &gather);
    m.def("advise_huge_pages",
          [](std::uintptr_t data, size_t size) { advise_huge_pages(reinterpret_cast<void*>(data), size); });
    m.def("set_calling_thread_parallelism", &set_calling_thread_parallelism);
}

EmbedOperands embed_operands(const py::tuple& tensors) {
    EmbedOperands operands;
    for (int i = 0; i < EmbedOperands::kCount; ++i) operands.tensor[i] = tensor_of(tensors[i]);
    return operands;
}

void bind_embed(py::module_& m) {
    m.def("embed_fits", [](const py::tuple& tensors, int type, bool dropout) {
        return embed_operands(tensors).fit(Element(type), dropout);
    });
    m.def("embed_workspace", [](const py::tuple& tensors) {
        return EmbedWorkspace(embed_operands(tensors).arguments()).floats;
    });
    m.def("embed", [](const py::tuple& tensors, const py::object& out, const py::object& statistics, uint32_t site,
                      uint32_t threshold, float keep_scale, float eps, bool on_cuda, Address stream) -> int {
        const EmbedOperands operands = embed_operands(tensors);
        const Tensor result = tensor_of(out);
        if (!operands.fit(result.element, threshold > 0)) return kNotAsNeeded;
        EmbedArguments a = operands.arguments();
        a.out = result.data, a.statistics = tensor_of(statistics).as<float>();
        a.rows = result.size[0], a.type = Type(result.element);
        a.site = site, a.threshold = threshold, a.keep_scale = keep_scale, a.eps = eps;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.tensor[0], embed_forward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(embed_forward, a);
    });
    m.def("embed_backward",
          [](const py::tuple& tensors, const py::object& grad, const py::object& statistics, const py::tuple& gradients,
             const py::object& workspace, uint32_t site, uint32_t threshold, float keep_scale, bool on_cuda,
             Address stream) -> int {
        const EmbedOperands operands = embed_operands(tensors);
        const Tensor given = tensor_of(grad);
        if (!operands.fit(given.element, threshold > 0)) return kNotAsNeeded;
        EmbedArguments a = operands.arguments();
        a.grad = given.data, a.statistics = tensor_of(statistics).as<float>();
        a.workspace = tensor_of(workspace).as<float>();
        a.rows = given.size[0], a.type = Type(given.element);
        a.site = site, a.threshold = threshold, a.keep_scale = keep_scale;
        EmbedGradients{tensor_of(gradients[0]),
                       {tensor_of(gradients[1]), tensor_of(gradients[2]), tensor_of(gradients[3])},
                       tensor_of(gradients[4]), tensor_of(gradients[5]),
                       {tensor_of(gradients[6]), tensor_of(gradients[7]), tensor_of(gradients[8])}}.add_to(a);
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.tensor[0], embed_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(embed_backward, a);
    });
}

// x, residual, gamma, beta (none backward), bias, rng, sample_keys, offsets.
struct DropoutAddNormOperands {
    Tensor x, residual, gamma, beta, bias, rng, sample_keys, offsets;

    explicit DropoutAddNormOperands(const py::tuple& tensors)
        : x(tensor_of(tensors[0])), residual(tensor_of(tensors[1])), gamma(tensor_of(tensors[2])),
          beta(tensor_of(tensors[3])), bias(tensor_of(tensors[4])), rng(tensor_of(tensors[5])),
          sample_keys(tensor_of(tensors[6])), offsets(tensor_of(tensors[7])) {}

    bool fit(bool dropout, bool allow_float16) const {
        const int64_t width = x.size[1], samples = offsets.size[0] - 1;
        for (const Tensor* other : {&residual, &gamma, &beta, &bias, &rng, &sample_keys, &offsets})
            if (*other && other->device != x.device) return false;
        if (!is_rows(x, allow_float16) || width == 0 || !residual.is_table(x.element, width) ||
            residual.size[0] != x.size[0])
            return false;
        if (!gamma.is_vector(Element::float32, width) || (beta && !beta.is_vector(Element::float32, width)))
            return false;
        if (bias && !is_bias(bias, x)) return false;
        if (offsets && (!offsets.is_vector(Element::int32, samples + 1) || samples < 0)) return false;
        return !dropout ||
            (offsets && rng.is_vector(Element::int64, 2) && sample_keys.is_vector(Element::int64, samples));
    }

    DropoutAddNormArguments arguments() const {
        DropoutAddNormArguments a{};
        a.x = x.data, a.residual = residual.data, a.bias = bias.data;
        a.gamma = gamma.as<float>(), a.beta = beta.as<float>();
        a.rng = rng.as<int64_t>(), a.sample_keys = sample_keys.as<int64_t>(), a.offsets = offsets.as<int32_t>();
        a.rows = x.size[0], a.width = int(x.size[1]), a.samples = offsets ? int(offsets.size[0]) - 1 : 0;
        a.type = Type(x.element), a.bias_type = bias ? Type(bias.element) : Type(0);
        return a;
    }
};

void bind_dropout_add_norm(py::module_& m) {
    m.def("dropout_add_norm_fits", [](const py::tuple& tensors, bool dropout, bool allow_float16) {
        const DropoutAddNormOperands operands(tensors);
        return operands.beta && operands.fit(dropout, allow_float16);
    });
    m.def("dropout_add_norm",
          [](const py::tuple& tensors, const py::object& out, const py::object& statistics, uint32_t site,
             uint32_t threshold, float scale, float eps, bool on_cuda, Address stream) -> int {
        const DropoutAddNormOperands operands(tensors);
        if (!operands.beta || !operands.fit(threshold > 0, on_cuda)) return kNotAsNeeded;
        DropoutAddNormArguments a = operands.arguments();
        a.out = tensor_of(out).data, a.statistics = tensor_of(statistics).as<float>();
        a.site = site, a.threshold = threshold, a.scale = scale, a.eps = eps;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.x, dropout_add_norm, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(dropout_add_norm, a);
    });
    m.def("dropout_add_norm_backward",
          [](const py::tuple& tensors, const py::object& grad, const py::object& statistics, const py::object& grad_x,
             const py::object& grad_residual, const py::object& partials, const py::object& sums, uint32_t site,
             uint32_t threshold, float scale, bool on_cuda, Address stream) -> int {
        const DropoutAddNormOperands operands(tensors);
        const Tensor given = tensor_of(grad);
        if (!operands.fit(threshold > 0, on_cuda) || !same_rows(given, operands.x)) return kNotAsNeeded;
        DropoutAddNormArguments a = operands.arguments();
        a.grad = given.data, a.statistics = tensor_of(statistics).as<float>();
        a.grad_x = tensor_of(grad_x).data, a.grad_residual = tensor_of(grad_residual).data;
        a.partials = tensor_of(partials).as<float>(), a.sums = tensor_of(sums).as<float>();
        a.site = site, a.threshold = threshold, a.scale = scale;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.x, dropout_add_norm_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(dropout_add_norm_backward, a);
    });
}

void bind_bias_gelu(py::module_& m) {
    const auto fit = [](const Tensor& x, const Tensor& bias, bool allow_float16) {
        return is_rows(x, allow_float16) && is_bias(bias, x) && bias.device == x.device;
    };
    const auto arguments = [](const Tensor& x, const Tensor& bias) {
        BiasGeluArguments a{};
        a.x = x.data, a.bias = bias.data, a.rows = x.size[0], a.width = int(x.size[1]);
        a.type = Type(x.element), a.bias_type = Type(bias.element);
        return a;
    };
    m.def("bias_gelu_fits", [=](const py::object& x, const py::object& bias, bool allow_float16) {
        return fit(tensor_of(x), tensor_of(bias), allow_float16);
    });
    m.def("bias_gelu",
          [=](const py::object& x, const py::object& bias, const py::object& out, bool on_cuda, Address stream) -> int {
        const Tensor rows = tensor_of(x), added = tensor_of(bias);
        if (!fit(rows, added, on_cuda)) return kNotAsNeeded;
        BiasGeluArguments a = arguments(rows, added);
        a.out = tensor_of(out).data;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(rows, bias_gelu, a, at<void>(stream)) : MEMOFAST_DISPATCH(bias_gelu, a);
    });
    m.def("bias_gelu_backward",
          [=](const py::object& x, const py::object& bias, const py::object& grad, const py::object& grad_x,
              const py::object& partials, const py::object& grad_bias, bool on_cuda, Address stream) -> int {
        const Tensor rows = tensor_of(x), added = tensor_of(bias), given = tensor_of(grad);
        if (!fit(rows, added, on_cuda) || !same_rows(given, rows)) return kNotAsNeeded;
        BiasGeluArguments a = arguments(rows, added);
        a.grad = given.data, a.grad_x = tensor_of(grad_x).data;
        a.partials = tensor_of(partials).as<float>(), a.grad_bias = tensor_of(grad_bias).as<float>();
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(rows, bias_gelu_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(bias_gelu_backward, a);
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
    bind_faults(m);
    bind_tensors(m);
    bind_masks(m);
    bind_dropout_add_norm(m);
    bind_bias_gelu(m);
    bind_attention(m);
    bind_embed(m);
    bind_store(m);
}
