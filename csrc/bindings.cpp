// The only file that knows Python: pointers, sizes and a stream come in as integers, an error code goes out.
#include <pybind11/pybind11.h>

#include <cmath>
#include <initializer_list>
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
#include "keep_factors.h"
#include "lstm.h"
#include "rows/philox.h"
#include "separable_attention.h"
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
        "torch.float32", "torch.bfloat16", "torch.float16", "torch.int32", "torch.int64", "torch.bool"};
    Tensor tensor;
    tensor.data = at<void>(object.attr("data_ptr")().cast<Address>());
    const auto type = py::str(object.attr("dtype")).cast<std::string>();
    for (int i = 0; i < int(Element::other); ++i)
        if (type == names[i]) tensor.element = Element(i);
    const py::object device = object.attr("device"), number = device.attr("index");
    const auto kind = device.attr("type").cast<std::string>();
    tensor.device = int64_t(kind == "cpu" ? 1 : kind == "cuda" ? 2 : 0) << 32;
    if (!number.is_none()) tensor.device |= number.cast<uint32_t>();
    tensor.contiguous = object.attr("is_contiguous")().cast<bool>();
    const py::tuple sizes = object.attr("shape");
    tensor.dimensions = int(sizes.size());
    for (int i = 0; i < tensor.dimensions && i < Tensor::kMostDimensions; ++i)
        tensor.size[i] = sizes[i].cast<int64_t>();
    return tensor;
}

// None is no tensor; what is none, and one without memory of its own, as a tracer's, fit nothing.
Tensor tensor_of(const py::handle& object) {
    static const ExchangeInterface* exchange = nullptr;
    // not a static's initialiser: those wait for one another without giving up Python's lock
    static PyTypeObject* kind = nullptr;
    if (object.is_none()) return {};
    if (!kind) {
        exchange = find_exchange();
        kind = reinterpret_cast<PyTypeObject*>(py::object(py::module_::import("torch").attr("Tensor")).release().ptr());
    }
    if (PyObject_TypeCheck(object.ptr(), kind)) {
        if (!exchange) return tensor_by_attributes(object);
        ExchangedTensor shown;
        if (exchange->show(object.ptr(), &shown) == 0) return tensor_of(shown);
        PyErr_Clear();
    }
    Tensor unreadable;
    unreadable.dimensions = 0;
    return unreadable;
}

// A type that kernels compute in.
bool is_computed(Element type, bool on_cuda) {
    return type < Element::float16 || (on_cuda && type == Element::float16);
}

// [rows, width] that kernels compute with.
bool is_rows(const Tensor& x, bool on_cuda) {
    return x.contiguous && x.dimensions == 2 && is_computed(x.element, on_cuda) && x.readable(on_cuda) &&
        x.size[1] <= INT32_MAX;
}

bool is_bias(const Tensor& bias, const Tensor& x) {
    return bias.is_vector(Element::float32, x.size[1]) || bias.is_vector(x.element, x.size[1]);
}

int64_t chunks_of(const Tensor& rows) { return (rows.size[0] + 63) / 64; }

// A number as Python gives it; what is no integer, or too large for the type, is not `good`.
template <class T>
struct Number {
    T value;
    bool good;

    explicit Number(const py::handle& object) {
        const long long number = PyLong_AsLongLong(object.ptr());
        value = T(number), good = static_cast<long long>(value) == number;
        if (number == -1 && PyErr_Occurred()) PyErr_Clear(), good = false;
    }
};

using Site = Number<uint32_t>;
using Object = const py::object&;

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

    // Whether the field can hold it.
    template <class T>
    bool read(const py::handle& tuple, T& field) const {
        const auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(tuple.ptr(), name_));
        if (!value) throw py::error_already_set();
        const Number<T> number(value);
        field = number.value;
        return number.good;
    }

private:
    PyObject* name_;
};

// Sets STRUCTURE.NAME to what the named tuple has under that name; whether it is a number that fits there.
#define MEMOFAST_READ(structure, name, tuple)           \
    [&] {                                               \
        static const Field field(#name);                \
        return field.read(tuple, (structure).name);     \
    }()

// Of a share of rows or words, as memofast/ops/row_lists.py has it.
bool is_ratio(int32_t numerator, int32_t denominator) {
    return 0 <= numerator && numerator <= denominator && 1 <= denominator && denominator <= 1000;
}

// False where a number is none of the policy's.
bool read_policy(const py::handle& given, SpanPolicy& policy) {
    bool good = MEMOFAST_READ(policy, kind, given);
    good &= MEMOFAST_READ(policy, numerator, given);
    good &= MEMOFAST_READ(policy, denominator, given);
    good &= MEMOFAST_READ(policy, length, given);
    good &= MEMOFAST_READ(policy, dice, given);
    good &= MEMOFAST_READ(policy, original, given);
    return good && SpanKind::span <= policy.kind && policy.kind <= SpanKind::mixed &&
        is_ratio(policy.numerator, policy.denominator) && 1 <= policy.length && policy.length <= 1 << 15;
}

bool read_policy(const py::handle& given, TokenPolicy& policy) {
    bool good = MEMOFAST_READ(policy, kind, given);
    good &= MEMOFAST_READ(policy, numerator, given);
    good &= MEMOFAST_READ(policy, denominator, given);
    good &= MEMOFAST_READ(policy, emotion_numerator, given);
    good &= MEMOFAST_READ(policy, emotion_denominator, given);
    good &= MEMOFAST_READ(policy, at_least_one, given);
    good &= MEMOFAST_READ(policy, mask_id, given);
    good &= MEMOFAST_READ(policy, random_low, given);
    good &= MEMOFAST_READ(policy, random_high, given);
    return good && TokenKind::whole_word <= policy.kind && policy.kind <= TokenKind::whole_word_emotion &&
        is_ratio(policy.numerator, policy.denominator) &&
        is_ratio(policy.emotion_numerator, policy.emotion_denominator) && policy.mask_id >= 0 &&
        0 <= policy.random_low && policy.random_low < policy.random_high;
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
    bool fit(bool on_cuda) const {
        const int64_t samples = sample_keys.size[0];
        if (!offsets.readable(on_cuda)) return false;
        for (const Tensor* other : {&sample_keys, &rng, &selected})
            if (*other && other->device != offsets.device) return false;
        if (selected && !selected.is_vector(Element::boolean, samples)) return false;
        return sample_keys.is_vector(Element::int64, samples) && offsets.is_vector(Element::int32, samples + 1) &&
            rng.is_vector(Element::int64, 2);
    }

    // Whether this is a number for each of so many rows.
    bool fits(const Tensor& values, int64_t rows) const {
        return rows <= INT32_MAX && values.is_array(offsets, Element::int32, rows);
    }

    // False where a number fits nothing.
    template <class Policy>
    bool read(int64_t rows, MaskedBatch& b, Policy& policy) const {
        b.offsets = offsets.as<int32_t>(), b.sample_keys = sample_keys.as<int64_t>(), b.rng = rng.as<int64_t>();
        b.selected = selected.as<bool>(), b.samples = sample_keys.size[0], b.rows = rows;
        const bool good = MEMOFAST_READ(b, purpose, parameters) && MEMOFAST_READ(b, site, parameters);
        return read_policy(parameters, policy) && good;
    }
};

// A negative status where the kernels cannot work with the operands as they are.
int span_mask_arguments(const MaskOperands& operands, bool on_cuda, const py::object& source, SpanMaskArguments& a) {
    const Tensor rows = tensor_of(source);
    if (!operands.fit(on_cuda) || !operands.fits(rows, rows.size[0])) return kNotAsNeeded;
    a.source = rows.as<int32_t>();
    return operands.read(rows.size[0], a.batch, a.policy) ? kSuccess : kBadNumber;
}

// The same; `emotion` may be None where the policy needs none.
int token_mask_arguments(const MaskOperands& operands, bool on_cuda, const py::object& token_ids,
                         const py::object& word_ids, const py::object& emotion, const py::object& seen,
                         const py::object& labels, TokenMaskArguments& a) {
    const Tensor ids = tensor_of(token_ids), words = tensor_of(word_ids), classes = tensor_of(emotion),
                 read = tensor_of(seen), targets = tensor_of(labels);
    const int64_t rows = ids.size[0];
    if (!operands.fit(on_cuda)) return kNotAsNeeded;
    for (const Tensor* values : {&ids, &words, &read, &targets})
        if (!operands.fits(*values, rows)) return kNotAsNeeded;
    if (classes && !operands.fits(classes, rows)) return kNotAsNeeded;
    a.token_ids = ids.as<int32_t>(), a.word_ids = words.as<int32_t>(), a.emotion = classes.as<int32_t>();
    a.seen = read.as<int32_t>(), a.labels = targets.as<int32_t>();
    if (!operands.read(rows, a.batch, a.policy)) return kBadNumber;
    return classes || a.policy.kind < TokenKind::emotion_word ? kSuccess : kNotAsNeeded;
}

// Where targets of values [rows] are listed, beside them; `workspace` is of a GPU, with a number for each sample.
// False where they cannot be.
bool read_target_list(const Tensor& beside, Object indices, Object count, Object overflow, const Tensor& workspace,
                      TargetList& list) {
    const Tensor entries = tensor_of(indices), targets = tensor_of(count), more = tensor_of(overflow);
    list.indices = entries.as<int32_t>(), list.capacity = entries.size[0];
    list.count = targets.as<int32_t>(), list.overflow = more.as<int32_t>();
    list.sample_counts = workspace.as<int32_t>();
    return entries.is_array(beside, Element::int32, entries.size[0]) && targets.is_array(beside, Element::int32, 1) &&
        more.is_array(beside, Element::int32, 1);
}

bool read_target_list(const MaskOperands& operands, Object indices, Object count, Object overflow, Object workspace,
                      TargetList& list) {
    const Tensor counts = tensor_of(workspace);
    return counts.is_array(operands.offsets, Element::int32, operands.sample_keys.size[0]) &&
        read_target_list(operands.offsets, indices, count, overflow, counts, list);
}

// The masks of the CPU return the number of targets, or a negative status, and list_targets lists them;
// those of the GPU do both.
void bind_masks(py::module_& m) {
    m.def("span_mask", [](Object offsets, Object sample_keys, Object rng, Object selected, Object source,
                          Object parameters) -> int64_t {
        SpanMaskArguments a{};
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        if (const int status = span_mask_arguments(operands, false, source, a)) return status;
        py::gil_scoped_release release;
        return MEMOFAST_DISPATCH(span_mask, a);
    });
    m.def("span_mask_on_cuda", [](Object offsets, Object sample_keys, Object rng, Object selected, Object source,
                                  Object parameters, Object indices, Object count, Object overflow, Object workspace,
                                  [[maybe_unused]] Address stream) -> int {
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        SpanMaskArguments a{};
        if (const int status = span_mask_arguments(operands, true, source, a)) return status;
        TargetList list{};
        if (!read_target_list(operands, indices, count, overflow, workspace, list)) return kNotAsNeeded;
        py::gil_scoped_release release;
        return MEMOFAST_CUDA_CALL(operands.offsets, span_mask, a, list, at<void>(stream));
    });
    m.def("token_mask", [](Object token_ids, Object word_ids, Object offsets, Object sample_keys, Object rng,
                           Object emotion, Object selected, Object seen, Object labels, Object parameters) -> int64_t {
        TokenMaskArguments a{};
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        if (const int status = token_mask_arguments(operands, false, token_ids, word_ids, emotion, seen, labels, a))
            return status;
        py::gil_scoped_release release;
        return MEMOFAST_DISPATCH(token_mask, a);
    });
    m.def("token_mask_on_cuda",
          [](Object token_ids, Object word_ids, Object offsets, Object sample_keys, Object rng, Object emotion,
             Object selected, Object seen, Object labels, Object parameters, Object indices, Object count,
             Object overflow, Object workspace, [[maybe_unused]] Address stream) -> int {
        TokenMaskArguments a{};
        const MaskOperands operands(offsets, sample_keys, rng, selected, parameters);
        if (const int status = token_mask_arguments(operands, true, token_ids, word_ids, emotion, seen, labels, a))
            return status;
        TargetList list{};
        if (!read_target_list(operands, indices, count, overflow, workspace, list)) return kNotAsNeeded;
        py::gil_scoped_release release;
        return MEMOFAST_CUDA_CALL(operands.offsets, token_mask, a, list, at<void>(stream));
    });
    m.def("list_targets", [](Object values, bool negative, Object indices, Object count, Object overflow) -> int {
        const Tensor written = tensor_of(values);
        const MaskedValues masked{written.as<int32_t>(), written.size[0], negative};
        TargetList list{};
        if (!written.readable(false) || !written.is_vector(Element::int32, written.size[0]) ||
            !read_target_list(written, indices, count, overflow, {}, list))
            return kNotAsNeeded;
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
    m.def("sample_words", [](Object rng, Object purpose, Object site, Object sample_keys, Object out) -> int {
        const Tensor keys = tensor_of(sample_keys), words = tensor_of(out), seed = tensor_of(rng);
        const Number<uint32_t> use(purpose), place(site);
        if (!keys.readable(false) || !keys.is_vector(Element::int64, keys.size[0]) ||
            !seed.is_array(keys, Element::int64, 2) || !words.is_array(keys, Element::int64, keys.size[0], 4))
            return kNotAsNeeded;
        if (!use.good || !place.good) return kBadNumber;
        const auto key = host::stream_key(seed.as<int64_t>(), use.value, place.value);
        for (int64_t sample = 0; sample < keys.size[0]; ++sample) {
            const auto drawn = host::draw(key, keys.as<int64_t>()[sample], 0, 0);
            for (int word = 0; word < 4; ++word) words.as<int64_t>()[4 * sample + word] = drawn.word[word];
        }
        return kSuccess;
    });
    m.def("keep_factors",
          [](Object rng, Object purpose, Object site, Object sample_keys, uint32_t threshold, float scale,
             Object factors) -> int {
              const Tensor keys = tensor_of(sample_keys), seed = tensor_of(rng), out = tensor_of(factors);
              const Number<uint32_t> use(purpose), place(site);
              if (!keys.readable(false) || !keys.is_vector(Element::int64, keys.size[0]) ||
                  !seed.is_array(keys, Element::int64, 2) ||
                  !out.is_array(keys, Element::float32, keys.size[0], out.size[1], out.size[2]))
                  return kNotAsNeeded;
              if (!use.good || !place.good || !std::isfinite(scale)) return kBadNumber;
              const KeepFactorsArguments a = {seed.as<int64_t>(), use.value,   place.value, keys.as<int64_t>(),
                                              keys.size[0],       out.size[1], out.size[2], threshold,
                                              scale,              out.as<float>()};
              return MEMOFAST_DISPATCH(keep_factors, a);
          });
    m.def("below", [](uint32_t word, uint32_t n) { return host::below(word, n); });
}

// Sizes of an LSTM whose gates are [steps, samples, 4 size] fp32 on the CPU.
struct LstmSizes {
    const Tensor& gates;
    int64_t steps = gates.size[0], samples = gates.size[1], size = gates.size[2] / 4;

    bool fit(const Tensor& weight) const {
        return gates.readable(false) && gates.is(Element::float32) && gates.dimensions == 3 && gates.size[2] % 4 == 0 &&
            weight.is_array(gates, Element::float32, 4 * size, size);
    }
    bool are_states(std::initializer_list<const Tensor*> all, int64_t count) const {
        for (const Tensor* one : all)
            if (!one->is_array(gates, Element::float32, count, samples, size)) return false;
        return true;
    }
};

void bind_lstm(py::module_& m) {
    m.def("lstm", [](Object gates, Object weight, Object hidden, Object cells, Object squashed) -> int {
        const Tensor into = tensor_of(gates), matrix = tensor_of(weight);
        const Tensor states = tensor_of(hidden), memory = tensor_of(cells), flat = tensor_of(squashed);
        const LstmSizes sizes{into};
        if (!sizes.fit(matrix) || !sizes.are_states({&states, &memory}, sizes.steps + 1) ||
            !sizes.are_states({&flat}, sizes.steps))
            return kNotAsNeeded;
        const LstmArguments a = {sizes.steps,       sizes.samples,      sizes.size,         matrix.as<float>(),
                                 into.as<float>(), states.as<float>(), memory.as<float>(), flat.as<float>()};
        return MEMOFAST_DISPATCH(lstm, a);
    });
    m.def("lstm_backward",
          [](Object gates, Object weight, Object cells, Object squashed, Object to_hidden, Object to_cells,
             Object of_gates) -> int {
              const Tensor active = tensor_of(gates), matrix = tensor_of(weight), memory = tensor_of(cells);
              const Tensor flat = tensor_of(squashed), hidden = tensor_of(to_hidden), kept = tensor_of(to_cells);
              const Tensor out = tensor_of(of_gates);
              const LstmSizes sizes{active};
              if (!sizes.fit(matrix) || !sizes.are_states({&memory}, sizes.steps + 1) ||
                  !sizes.are_states({&flat, &hidden, &kept}, sizes.steps) || !out.is_like(active))
                  return kNotAsNeeded;
              const LstmBackwardArguments a = {sizes.steps,          sizes.samples,       sizes.size,
                                               matrix.as<float>(), active.as<float>(), memory.as<float>(),
                                               flat.as<float>(),   hidden.as<float>(), kept.as<float>(),
                                               out.as<float>()};
              return MEMOFAST_DISPATCH(lstm_backward, a);
          });
}

// qkv, kv, query_offsets, offsets, lengths, rng, sample_keys; with kv and query_offsets, qkv holds queries alone.
struct AttentionOperands {
    Tensor qkv, kv, query_offsets, offsets, lengths, rng, sample_keys;

    explicit AttentionOperands(const py::tuple& tensors)
        : qkv(tensor_of(tensors[0])), kv(tensor_of(tensors[1])), query_offsets(tensor_of(tensors[2])),
          offsets(tensor_of(tensors[3])), lengths(tensor_of(tensors[4])), rng(tensor_of(tensors[5])),
          sample_keys(tensor_of(tensors[6])) {}

    static constexpr int64_t kMostRowWidth = 1 << 24;  // of all heads together

    const Tensor& keys() const { return kv ? kv : qkv; }
    int64_t heads() const { return keys().size[2]; }
    int64_t width() const { return keys().size[3]; }

    // Whether the kernels can read them as they are.
    bool fit(bool dropout, bool on_cuda) const {
        const int64_t samples = offsets.size[0] - 1;
        if (!qkv.readable(on_cuda)) return false;
        for (const Tensor* other : {&kv, &query_offsets, &offsets, &lengths, &rng, &sample_keys})
            if (*other && other->device != qkv.device) return false;
        if (!qkv.contiguous || !is_computed(qkv.element, on_cuda)) return false;
        if (keys().dimensions != 4 || keys().size[1] != (kv ? 2 : 3) || !heads() || !width() || width() % 8)
            return false;
        if (heads() > kMostRowWidth / width() || keys().size[0] > INT32_MAX || qkv.size[0] > INT32_MAX) return false;
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

    // Whether something is what attention gives for each query and head, and whether it is each one's `lse`.
    bool is_output(const Tensor& out) const {
        return out.is_array(qkv, qkv.element, qkv.size[0], heads(), width());
    }
    bool is_lse(const Tensor& lse) const { return lse.is_array(qkv, Element::float32, qkv.size[0], heads()); }

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

// False where a kernel cannot work with one of them.
bool set_numbers(AttentionArguments& a, Object site, uint32_t threshold, float keep_scale, float scale,
                 Object longest) {
    const Site place(site);
    const Number<int64_t> most(longest);
    a.site = place.value, a.threshold = threshold, a.keep_scale = keep_scale, a.scale = scale, a.longest = most.value;
    return place.good && most.good && most.value >= 0 && std::isfinite(keep_scale) && std::isfinite(scale);
}

void bind_attention(py::module_& m) {
    m.def("attention_fits", [](const py::tuple& tensors, bool dropout, bool on_cuda) {
        return AttentionOperands(tensors).fit(dropout, on_cuda);
    });
    m.def("attention",
          [](const py::tuple& tensors, Object out, Object lse, Object site, uint32_t threshold, float keep_scale,
             float scale, Object longest, bool causal, bool on_cuda, Address stream) -> int {
        const AttentionOperands operands(tensors);
        const Tensor result = tensor_of(out), sums = tensor_of(lse);
        if (!operands.fit(threshold > 0, on_cuda) || !operands.is_output(result) || !operands.is_lse(sums))
            return kNotAsNeeded;
        AttentionArguments a = operands.arguments();
        if (!set_numbers(a, site, threshold, keep_scale, scale, longest)) return kBadNumber;
        if (causal && on_cuda) return kUnsupported;
        a.out = result.data, a.lse = sums.as<float>(), a.causal = causal;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.qkv, attention_forward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(attention_forward, a);
    });
    m.def("attention_backward",
          [](const py::tuple& tensors, Object grad, Object out, Object lse, Object grad_qkv, Object grad_kv,
             Object site, uint32_t threshold, float keep_scale, float scale, Object longest, bool causal, bool on_cuda,
             Address stream) -> int {
        const AttentionOperands operands(tensors);
        const Tensor given = tensor_of(grad), saved = tensor_of(out), sums = tensor_of(lse),
                     of_qkv = tensor_of(grad_qkv), of_kv = tensor_of(grad_kv);
        if (!operands.fit(threshold > 0, on_cuda) || !operands.is_output(given) || !operands.is_output(saved) ||
            !operands.is_lse(sums) || !of_qkv.is_like(operands.qkv) ||
            (operands.kv && !of_kv.is_like(operands.kv)))
            return kNotAsNeeded;
        AttentionArguments a = operands.arguments();
        if (!set_numbers(a, site, threshold, keep_scale, scale, longest)) return kBadNumber;
        if (causal && on_cuda) return kUnsupported;
        a.grad = given.data, a.saved = saved.data, a.lse = sums.as<float>(), a.causal = causal;
        a.grad_q = of_qkv.data, a.grad_kv = operands.keys_in(a.grad_q, of_kv.data);
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.qkv, attention_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(attention_backward, a);
    });
}

// queries, pixels, shift, scale, rng, sample_keys, and the grid's times, heights and widths.
struct SeparableOperands {
    Tensor queries, pixels, shift, scale, rng, sample_keys;
    Number<int> times, heights, widths;

    SeparableOperands(const py::tuple& tensors, const py::tuple& grid)
        : queries(tensor_of(tensors[0])), pixels(tensor_of(tensors[1])), shift(tensor_of(tensors[2])),
          scale(tensor_of(tensors[3])), rng(tensor_of(tensors[4])), sample_keys(tensor_of(tensors[5])),
          times(grid[0]), heights(grid[1]), widths(grid[2]) {}

    // Whether the kernels can read them as they are.
    bool fit(bool dropout, bool on_cuda) const {
        constexpr int most = 1 << 16;
        for (const Number<int>* size : {&times, &heights, &widths})
            if (!size->good || size->value < 1 || size->value > most) return false;
        const int64_t rows = int64_t(times.value) * heights.value * widths.value, samples = pixels.size[0];
        if (!pixels.readable(on_cuda) || !pixels.contiguous || !is_computed(pixels.element, on_cuda)) return false;
        if (pixels.dimensions != 3 || pixels.size[1] != rows || rows > INT32_MAX) return false;
        if (pixels.size[2] < 1 || pixels.size[2] > most || queries.size[0] < 1 || queries.size[0] > most) return false;
        const int64_t columns = pixels.size[2] + 1 + times.value + heights.value + widths.value;
        return queries.is_array(pixels, Element::float32, queries.size[0], columns) &&
            shift.is_array(pixels, Element::float32, samples, rows) &&
            scale.is_array(pixels, Element::float32, samples, rows) &&
            (!dropout ||
             (rng.is_array(pixels, Element::int64, 2) && sample_keys.is_array(pixels, Element::int64, samples)));
    }

    SeparableAttentionArguments arguments() const {
        SeparableAttentionArguments a{};
        a.queries = queries.as<float>(), a.pixels = pixels.data, a.shift = shift.as<float>();
        a.scale = scale.as<float>(), a.rng = rng.as<int64_t>(), a.sample_keys = sample_keys.as<int64_t>();
        a.samples = pixels.size[0], a.latents = queries.size[0], a.pixel_width = int(pixels.size[2]);
        a.times = times.value, a.heights = heights.value, a.widths = widths.value;
        a.type = Type(int(pixels.element));
        return a;
    }

    // gathered, mass and lse, or their gradients.
    bool are_outputs(const Tensor& gathered, const Tensor& mass, const Tensor& lse) const {
        const int64_t samples = pixels.size[0], latents = queries.size[0];
        return gathered.is_array(pixels, Element::float32, samples, latents, queries.size[1]) &&
            mass.is_array(pixels, Element::float32, samples, latents) &&
            lse.is_array(pixels, Element::float32, samples, latents);
    }
};

bool set_numbers(SeparableAttentionArguments& a, const Site& site, uint32_t threshold, float keep_scale) {
    a.site = site.value, a.threshold = threshold, a.keep_scale = keep_scale;
    return site.good && threshold < 1 << 16;
}

void bind_separable_attention(py::module_& m) {
    m.def("separable_attention_workspace", [](const py::tuple& tensors, const py::tuple& grid, bool backward,
                                              bool on_cuda) -> int64_t {
        const SeparableOperands operands(tensors, grid);
        if (!operands.fit(false, on_cuda)) return 0;
        return separable_attention_workspace(operands.arguments(), backward, on_cuda);
    });
    m.def("separable_attention",
          [](const py::tuple& tensors, const py::tuple& grid, Object gathered, Object mass, Object lse,
             Object workspace, Object site, uint32_t threshold, float keep_scale, bool on_cuda,
             [[maybe_unused]] Address stream) -> int {
        const SeparableOperands operands(tensors, grid);
        const Tensor sums = tensor_of(gathered), kept = tensor_of(mass), logs = tensor_of(lse),
                     room = tensor_of(workspace);
        if (!operands.fit(threshold > 0, on_cuda) || !operands.are_outputs(sums, kept, logs)) return kNotAsNeeded;
        SeparableAttentionArguments a = operands.arguments();
        if (!set_numbers(a, Site(site), threshold, keep_scale)) return kBadNumber;
        if (!room.is_array(operands.pixels, Element::float32, separable_attention_workspace(a, false, on_cuda)))
            return kNotAsNeeded;
        a.gathered = sums.as<float>(), a.mass = kept.as<float>(), a.lse = logs.as<float>();
        a.workspace = room.as<float>();
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.pixels, separable_attention, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(separable_attention, a);
    });
    m.def("separable_attention_backward",
          [](const py::tuple& tensors, const py::tuple& grid, const py::tuple& grads, const py::tuple& outputs,
             Object grad_queries, Object grad_rows, Object workspace, Object site, uint32_t threshold,
             float keep_scale, bool on_cuda, [[maybe_unused]] Address stream) -> int {
        const SeparableOperands operands(tensors, grid);
        const Tensor of_sums = tensor_of(grads[0]), of_kept = tensor_of(grads[1]), of_logs = tensor_of(grads[2]),
                     sums = tensor_of(outputs[0]), kept = tensor_of(outputs[1]), logs = tensor_of(outputs[2]),
                     of_queries = tensor_of(grad_queries), of_rows = tensor_of(grad_rows), room = tensor_of(workspace);
        if (!operands.fit(threshold > 0, on_cuda) || !operands.are_outputs(sums, kept, logs) ||
            !operands.are_outputs(of_sums, of_kept, of_logs) || !of_queries.is_like(operands.queries))
            return kNotAsNeeded;
        SeparableAttentionArguments a = operands.arguments();
        if (!set_numbers(a, Site(site), threshold, keep_scale)) return kBadNumber;
        if (!of_rows.is_array(operands.pixels, Element::float32, 2, a.samples, a.rows()) ||
            !room.is_array(operands.pixels, Element::float32, separable_attention_workspace(a, true, on_cuda)))
            return kNotAsNeeded;
        a.gathered = sums.as<float>(), a.mass = kept.as<float>(), a.lse = logs.as<float>();
        a.grad_gathered = of_sums.as<float>(), a.grad_mass = of_kept.as<float>(), a.grad_lse = of_logs.as<float>();
        a.grad_queries = of_queries.as<float>(), a.grad_shift = of_rows.as<float>();
        a.grad_scale = a.grad_shift + a.samples * a.rows(), a.workspace = room.as<float>();
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.pixels, separable_attention_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(separable_attention_backward, a);
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

// Packed rows, read or written, and the statistics of each of them.
bool embed_rows_fit(const EmbedOperands& operands, const Tensor& rows, const Tensor& statistics, bool on_cuda) {
    const Tensor& types = operands.tensor[EmbedOperands::kTypes];
    return is_rows(rows, on_cuda) && rows.is_array(types, rows.element, rows.size[0], types.size[1]) &&
        rows.size[0] <= INT32_MAX && statistics.is_array(types, Element::float32, rows.size[0], 4);
}

void bind_embed(py::module_& m) {
    m.def("embed_fits", [](const py::tuple& tensors, int type, bool dropout, bool on_cuda) {
        return embed_operands(tensors).fit(Element(type), dropout, on_cuda);
    });
    m.def("embed_workspace", [](const py::tuple& tensors) {
        return EmbedWorkspace(embed_operands(tensors).arguments()).floats;
    });
    m.def("embed", [](const py::tuple& tensors, Object out, Object statistics, Object site, uint32_t threshold,
                      float keep_scale, float eps, bool on_cuda, Address stream) -> int {
        const EmbedOperands operands = embed_operands(tensors);
        const Tensor result = tensor_of(out), known = tensor_of(statistics);
        if (!operands.fit(result.element, threshold > 0, on_cuda) || !embed_rows_fit(operands, result, known, on_cuda))
            return kNotAsNeeded;
        const Site place(site);
        if (!place.good || !std::isfinite(keep_scale) || !(eps >= 0) || !std::isfinite(eps)) return kBadNumber;
        EmbedArguments a = operands.arguments();
        a.out = result.data, a.statistics = known.as<float>();
        a.rows = result.size[0], a.type = Type(result.element);
        a.site = place.value, a.threshold = threshold, a.keep_scale = keep_scale, a.eps = eps;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.tensor[0], embed_forward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(embed_forward, a);
    });
    m.def("embed_backward",
          [](const py::tuple& tensors, Object grad, Object statistics, const py::tuple& gradients, Object workspace,
             Object site, uint32_t threshold, float keep_scale, bool on_cuda, Address stream) -> int {
        const EmbedOperands operands = embed_operands(tensors);
        const Tensor given = tensor_of(grad), known = tensor_of(statistics), space = tensor_of(workspace);
        const EmbedGradients results{tensor_of(gradients[0]),
                                     {tensor_of(gradients[1]), tensor_of(gradients[2]), tensor_of(gradients[3])},
                                     tensor_of(gradients[4]), tensor_of(gradients[5]),
                                     {tensor_of(gradients[6]), tensor_of(gradients[7]), tensor_of(gradients[8])}};
        if (!operands.fit(given.element, threshold > 0, on_cuda) || !embed_rows_fit(operands, given, known, on_cuda) ||
            !results.fit(operands, on_cuda))
            return kNotAsNeeded;
        const Site place(site);
        if (!place.good || !std::isfinite(keep_scale)) return kBadNumber;
        EmbedArguments a = operands.arguments();
        a.grad = given.data, a.statistics = known.as<float>(), a.workspace = space.as<float>();
        a.rows = given.size[0], a.type = Type(given.element);
        a.site = place.value, a.threshold = threshold, a.keep_scale = keep_scale;
        if (on_cuda && !space.is_array(known, Element::float32, EmbedWorkspace(a).floats)) return kNotAsNeeded;
        results.add_to(a);
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

    bool fit(bool dropout, bool on_cuda) const {
        const int64_t width = x.size[1], samples = offsets.size[0] - 1;
        for (const Tensor* other : {&residual, &gamma, &beta, &bias, &rng, &sample_keys, &offsets})
            if (*other && other->device != x.device) return false;
        if (!is_rows(x, on_cuda) || width == 0 || !residual.is_like(x)) return false;
        if (!gamma.is_vector(Element::float32, width) || (beta && !beta.is_vector(Element::float32, width)))
            return false;
        if (bias && !is_bias(bias, x)) return false;
        if (offsets && (!offsets.is_vector(Element::int32, samples + 1) || samples < 0)) return false;
        return !dropout ||
            (offsets && rng.is_vector(Element::int64, 2) && sample_keys.is_vector(Element::int64, samples));
    }

    bool are_statistics(const Tensor& known) const { return known.is_array(x, Element::float32, x.size[0], 2); }

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
    m.def("dropout_add_norm_fits", [](const py::tuple& tensors, bool dropout, bool on_cuda) {
        const DropoutAddNormOperands operands(tensors);
        return operands.beta && operands.fit(dropout, on_cuda);
    });
    m.def("dropout_add_norm",
          [](const py::tuple& tensors, Object out, Object statistics, Object site, uint32_t threshold, float scale,
             float eps, bool on_cuda, Address stream) -> int {
        const DropoutAddNormOperands operands(tensors);
        const Tensor result = tensor_of(out), known = tensor_of(statistics);
        if (!operands.beta || !operands.fit(threshold > 0, on_cuda) || !result.is_like(operands.x) ||
            !operands.are_statistics(known))
            return kNotAsNeeded;
        const Site place(site);
        if (!place.good || !std::isfinite(scale) || !(eps >= 0) || !std::isfinite(eps)) return kBadNumber;
        DropoutAddNormArguments a = operands.arguments();
        a.out = result.data, a.statistics = known.as<float>();
        a.site = place.value, a.threshold = threshold, a.scale = scale, a.eps = eps;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.x, dropout_add_norm, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(dropout_add_norm, a);
    });
    m.def("dropout_add_norm_backward",
          [](const py::tuple& tensors, Object grad, Object statistics, Object grad_x, Object grad_residual,
             Object partials, Object sums, Object site, uint32_t threshold, float scale, bool on_cuda,
             Address stream) -> int {
        const DropoutAddNormOperands operands(tensors);
        const Tensor given = tensor_of(grad), known = tensor_of(statistics), of_x = tensor_of(grad_x),
                     of_residual = tensor_of(grad_residual), parts = tensor_of(partials), total = tensor_of(sums);
        const Tensor& x = operands.x;
        const int kinds = operands.bias ? 3 : 2;
        if (!operands.fit(threshold > 0, on_cuda) || !given.is_like(x) || !operands.are_statistics(known) ||
            (of_x && !of_x.is_like(x)) || !of_residual.is_like(x) ||
            !parts.is_array(x, Element::float32, chunks_of(x), kinds, x.size[1]) ||
            !total.is_array(x, Element::float32, kinds, x.size[1]))
            return kNotAsNeeded;
        const Site place(site);
        if (!place.good || !std::isfinite(scale)) return kBadNumber;
        DropoutAddNormArguments a = operands.arguments();
        a.grad = given.data, a.statistics = known.as<float>();
        a.grad_x = of_x.data, a.grad_residual = of_residual.data;
        a.partials = parts.as<float>(), a.sums = total.as<float>();
        a.site = place.value, a.threshold = threshold, a.scale = scale;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(operands.x, dropout_add_norm_backward, a, at<void>(stream))
                       : MEMOFAST_DISPATCH(dropout_add_norm_backward, a);
    });
}

void bind_bias_gelu(py::module_& m) {
    const auto fit = [](const Tensor& x, const Tensor& bias, bool on_cuda) {
        return is_rows(x, on_cuda) && is_bias(bias, x) && bias.device == x.device;
    };
    const auto arguments = [](const Tensor& x, const Tensor& bias) {
        BiasGeluArguments a{};
        a.x = x.data, a.bias = bias.data, a.rows = x.size[0], a.width = int(x.size[1]);
        a.type = Type(x.element), a.bias_type = Type(bias.element);
        return a;
    };
    m.def("bias_gelu_fits", [=](Object x, Object bias, bool on_cuda) {
        return fit(tensor_of(x), tensor_of(bias), on_cuda);
    });
    m.def("bias_gelu", [=](Object x, Object bias, Object out, bool on_cuda, Address stream) -> int {
        const Tensor rows = tensor_of(x), added = tensor_of(bias), result = tensor_of(out);
        if (!fit(rows, added, on_cuda) || !result.is_like(rows)) return kNotAsNeeded;
        BiasGeluArguments a = arguments(rows, added);
        a.out = result.data;
        py::gil_scoped_release release;
        return on_cuda ? MEMOFAST_CUDA_CALL(rows, bias_gelu, a, at<void>(stream)) : MEMOFAST_DISPATCH(bias_gelu, a);
    });
    m.def("bias_gelu_backward",
          [=](Object x, Object bias, Object grad, Object grad_x, Object partials, Object grad_bias, bool on_cuda,
              Address stream) -> int {
        const Tensor rows = tensor_of(x), added = tensor_of(bias), given = tensor_of(grad), of_x = tensor_of(grad_x),
                     parts = tensor_of(partials), of_bias = tensor_of(grad_bias);
        if (!fit(rows, added, on_cuda) || !given.is_like(rows) || !of_x.is_like(rows) ||
            !parts.is_array(rows, Element::float32, chunks_of(rows), rows.size[1]) ||
            !of_bias.is_array(rows, Element::float32, rows.size[1]))
            return kNotAsNeeded;
        BiasGeluArguments a = arguments(rows, added);
        a.grad = given.data, a.grad_x = of_x.data;
        a.partials = parts.as<float>(), a.grad_bias = of_bias.as<float>();
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
    bind_lstm(m);
    bind_attention(m);
    bind_separable_attention(m);
    bind_embed(m);
    bind_store(m);
}
