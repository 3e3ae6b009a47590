#include "host/tensor.h"

namespace memofast {
namespace {

enum Kind : uint8_t { kInteger = 0, kFloat = 2, kBFloat = 4, kBoolean = 6 };  // DLDataTypeCode

Element element_of(uint8_t kind, uint8_t bits, uint16_t lanes) {
    if (lanes != 1) return Element::other;
    if (kind == kFloat) return bits == 32 ? Element::float32 : bits == 16 ? Element::float16 : Element::other;
    if (kind == kInteger) return bits == 32 ? Element::int32 : bits == 64 ? Element::int64 : Element::other;
    if (kind == kBoolean) return bits == 8 ? Element::boolean : Element::other;
    return kind == kBFloat && bits == 16 ? Element::bfloat16 : Element::other;
}

}  // namespace

const ExchangeInterface* understood(const ExchangeInterface* interface) {
    while (interface && interface->major != 1) interface = interface->older;
    return interface;
}

bool is_contiguous(const int64_t* sizes, const int64_t* strides, int dimensions) {
    bool follows = true;
    int64_t expected = 1;
    for (int i = dimensions - 1; i >= 0; --i) {
        if (sizes[i] == 0) return true;
        follows &= !strides || sizes[i] == 1 || strides[i] == expected;
        expected *= sizes[i];
    }
    return follows;
}

Tensor tensor_of(const ExchangedTensor& shown) {
    Tensor tensor;
    tensor.data = static_cast<char*>(shown.data) + shown.byte_offset;
    tensor.element = element_of(shown.kind, shown.bits, shown.lanes);
    tensor.device = int64_t(shown.device_kind) << 32 | uint32_t(shown.device_number);
    tensor.dimensions = shown.dimensions;
    tensor.contiguous = is_contiguous(shown.sizes, shown.strides, shown.dimensions) &&
        reinterpret_cast<uintptr_t>(tensor.data) % (shown.bits > 8 ? shown.bits / 8 : 1) == 0;
    int64_t elements = 1;
    for (int i = 0; i < shown.dimensions; ++i) elements *= shown.sizes[i];
    for (int i = 0; i < shown.dimensions && i < Tensor::kMostDimensions; ++i) tensor.size[i] = shown.sizes[i];
    if (elements && !shown.data) tensor.element = Element::other;  // a tracer's
    return tensor;
}

}  // namespace memofast
