// Tensors and errors as Python knows them.
#include "bindings/tensors.h"

#include <string>

namespace memofast {
namespace {

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

}  // namespace

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

void bind_tensors(py::module_& m) {
    m.def("describe_tensor", [](const py::object& object, bool by_attributes) {
        const Tensor tensor = by_attributes ? tensor_by_attributes(object) : tensor_of(object);
        py::list sizes;
        for (int i = 0; i < tensor.dimensions && i < Tensor::kMostDimensions; ++i) sizes.append(tensor.size[i]);
        return py::make_tuple(Address(tensor.data), int(tensor.element), tensor.device, sizes, tensor.contiguous);
    });
    m.def("cuda_error", [](int status) -> std::string {
#ifdef MEMOFAST_WITH_CUDA
        return std::string(cuda::error_name(status)) + ": " + cuda::error_text(status);
#else
        return "CUDA error " + std::to_string(status);
#endif
    });
}

}  // namespace memofast
