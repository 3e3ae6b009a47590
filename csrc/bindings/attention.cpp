// Attention over packed samples, and over the rows of a grid.
#include "attention.h"

#include <cmath>

#include "bindings/tensors.h"
#include "separable_attention.h"

namespace memofast {
namespace {

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

void bind_packed_attention(py::module_& m) {
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

}  // namespace

void bind_attention(py::module_& m) {
    bind_packed_attention(m);
    bind_separable_attention(m);
}

}  // namespace memofast
