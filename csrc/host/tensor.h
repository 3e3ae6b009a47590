// Tensors as Python hands them over. PyTorch shows them through DLPack's exchange interface, which costs some ten
// nanoseconds where an attribute costs a hundred. Source of the structures: DLPack 1.3, dlpack.h.
#pragma once

#include <cstdint>

#include "variant.h"

namespace memofast {

enum class Element { float32, bfloat16, float16, int32, int64, boolean, other };  // the first three are Type's

// DLPack's kind of device of a GPU; CUDA kernels that a test compiles for the host read the host's.
#ifndef MEMOFAST_CUDA_DEVICE
#define MEMOFAST_CUDA_DEVICE 2
#endif

struct Tensor {
    static constexpr int kMostDimensions = 4;
    void* data = nullptr;
    Element element = Element::other;
    int64_t device = 0;   // its kind << 32 | its number
    int dimensions = -1;  // -1: no tensor
    int64_t size[kMostDimensions] = {};
    bool contiguous = false;  // and each element at a multiple of its size

    explicit operator bool() const { return dimensions >= 0; }
    int device_number() const { return int(uint32_t(device)); }
    // Whether it lies where a kernel of the CPU, or of a GPU, can read it.
    bool readable(bool on_cuda) const { return device >> 32 == (on_cuda ? MEMOFAST_CUDA_DEVICE : 1); }
    template <class T>
    T* as() const {
        return static_cast<T*>(data);
    }
    bool is(Element type) const { return contiguous && element == type; }
    bool is_vector(Element type, int64_t length) const { return is(type) && dimensions == 1 && size[0] == length; }
    bool is_table(Element type, int64_t width) const { return is(type) && dimensions == 2 && size[1] == width; }
    // Whether it has just these sizes, and lies on the device of another.
    template <class... Sizes>
    bool is_array(const Tensor& beside, Element type, Sizes... sizes) const {
        const int64_t wanted[] = {int64_t(sizes)...};
        bool fits = device == beside.device && is(type) && dimensions == int(sizeof...(sizes));
        for (int i = 0; i < int(sizeof...(sizes)); ++i) fits = fits && size[i] == wanted[i];
        return fits;
    }
    bool is_like(const Tensor& other) const {
        bool fits = device == other.device && is(other.element) && dimensions == other.dimensions;
        for (int i = 0; i < kMostDimensions; ++i) fits = fits && size[i] == other.size[i];
        return fits;
    }
};

// DLPack's DLTensor.
struct ExchangedTensor {
    void* data;
    int32_t device_kind, device_number, dimensions;
    uint8_t kind, bits;
    uint16_t lanes;
    const int64_t *sizes, *strides;
    uint64_t byte_offset;
};

// DLPack's DLPackExchangeAPI.
struct ExchangeInterface {
    uint32_t major, minor;
    const ExchangeInterface* older;
    void *allocate, *take, *give;
    int (*show)(void* object, ExchangedTensor* tensor);  // 0 on success; else a Python error is set
    void* stream;
};

// The interface or an older one that this code understands; null if there is none.
const ExchangeInterface* understood(const ExchangeInterface* newest);

Tensor tensor_of(const ExchangedTensor& shown);

// Whether elements lie one after the other; strides are counted in elements, null: they do.
bool is_contiguous(const int64_t* sizes, const int64_t* strides, int dimensions);

}  // namespace memofast
