// Kernels that compute row by row, and the LSTM.
#include <cmath>
#include <initializer_list>

#include "bias_gelu.h"
#include "bindings/tensors.h"
#include "dropout_add_norm.h"
#include "embed.h"
#include "host/embed_operands.h"
#include "lstm.h"

namespace memofast {
namespace {

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

}  // namespace

void bind_rows(py::module_& m) {
    bind_embed(m);
    bind_dropout_add_norm(m);
    bind_bias_gelu(m);
    bind_lstm(m);
}

}  // namespace memofast
