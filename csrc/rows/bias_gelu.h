// One packet of a row of GELU(x + bias).
#pragma once

#include "../bias_gelu.h"
#include "rows/math.h"

namespace memofast::MEMOFAST_VARIANT {

// As exact as the type of the result can show.
template <class T>
MEMOFAST_FUNCTION Unit gelu_of(Unit v) {
    return sizeof(T) == 4 ? gelu(v) : gelu_short(v);
}
template <class T>
MEMOFAST_FUNCTION Unit gelu_derivative_of(Unit v) {
    return sizeof(T) == 4 ? gelu_derivative(v) : gelu_derivative_short(v);
}

template <class T>
MEMOFAST_FUNCTION void gelu_packet(const T* x, const Unit* bias, int count, T* out) {
    Unit v[kUnits];
    load_packet(x, count, v);
    MEMOFAST_UNROLL for (int i = 0; i < kUnits; ++i) v[i] = gelu_of<T>(v[i] + bias[i]);
    store_packet(out, count, v);
}

// Adds the packet's share of the bias gradient to sums[kUnits].
template <class T>
MEMOFAST_FUNCTION void gelu_packet_backward(const T* x, const Unit* bias, const T* grad, int count, T* grad_x,
                                            Unit* sums) {
    Unit v[kUnits], g[kUnits];
    load_packet(x, count, v);
    load_packet(grad, count, g);
    MEMOFAST_UNROLL for (int i = 0; i < kUnits; ++i) g[i] *= gelu_derivative_of<T>(v[i] + bias[i]);
    store_packet(grad_x, count, g);
    MEMOFAST_UNROLL for (int i = 0; i < kUnits; ++i) sums[i] += g[i];
}

}  // namespace memofast::MEMOFAST_VARIANT
