// Masks of rows and of word pieces.
#include "bindings/tensors.h"
#include "span_mask.h"
#include "token_mask.h"

namespace memofast {
namespace {

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

}  // namespace

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
}

}  // namespace memofast
