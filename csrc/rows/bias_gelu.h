// One chunk of a row of GELU(x + bias).
#pragma once

#include "../bias_gelu.h"
#include "rows/math.h"

namespace memofast::MEMOFAST_VARIANT {

// As exact as the type of the result can show.
template <class T>
MEMOFAST_FUNCTION float gelu_of(float v) {
    return sizeof(T) == 4 ? gelu(v) : gelu_short(v);
}
template <class T>
MEMOFAST_FUNCTION float gelu_derivative_of(float v) {
    return sizeof(T) == 4 ? gelu_derivative(v) : gelu_derivative_short(v);
}

template <class Group, class T>
MEMOFAST_FUNCTION void gelu_chunk(const T* x, const float* bias, int count, T* out) {
    constexpr int n = Group::kChunk;
    float v[n];
    load<n>(x, count, v);
    MEMOFAST_SIMD for (int i = 0; i < n; ++i) v[i] = gelu_of<T>(v[i] + bias[i]);
    store<n>(out, count, v);
}

// Adds the chunk's share of the bias gradient to sums[n].
template <class Group, class T>
MEMOFAST_FUNCTION void gelu_chunk_backward(const T* x, const float* bias, const T* grad, int count, T* grad_x, float* sums) {
    constexpr int n = Group::kChunk;
    float v[n], g[n];
    load<n>(x, count, v);
    load<n>(grad, count, g);
    MEMOFAST_SIMD for (int i = 0; i < n; ++i) g[i] *= gelu_derivative_of<T>(v[i] + bias[i]);
    store<n>(grad_x, count, g);
    MEMOFAST_SIMD for (int i = 0; i < n; ++i) sums[i] += g[i];
}

}  // namespace memofast::MEMOFAST_VARIANT
