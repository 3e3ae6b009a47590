// What bindings share: tensors and numbers as Python hands them over. Only the files of this folder know Python.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#define MEMOFAST_VARIANT host

#include "device.h"
#include "host/tensor.h"
#include "variant.h"

namespace memofast {

namespace py = pybind11;
using Address = std::uintptr_t;
using Object = const py::object&;

void bind_tensors(py::module_& m);
void bind_draws(py::module_& m);
void bind_masks(py::module_& m);
void bind_rows(py::module_& m);
void bind_attention(py::module_& m);
void bind_stores(py::module_& m);

// None is no tensor; what is none, and one without memory of its own, as a tracer's, fit nothing.
Tensor tensor_of(const py::handle& object);

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

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

// A type that kernels compute in.
inline bool is_computed(Element type, bool on_cuda) {
    return type < Element::float16 || (on_cuda && type == Element::float16);
}

// [rows, width] that kernels compute with.
inline bool is_rows(const Tensor& x, bool on_cuda) {
    return x.contiguous && x.dimensions == 2 && is_computed(x.element, on_cuda) && x.readable(on_cuda) &&
        x.size[1] <= INT32_MAX;
}

inline bool is_bias(const Tensor& bias, const Tensor& x) {
    return bias.is_vector(Element::float32, x.size[1]) || bias.is_vector(x.element, x.size[1]);
}

inline int64_t chunks_of(const Tensor& rows) { return (rows.size[0] + 63) / 64; }

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

}  // namespace memofast
