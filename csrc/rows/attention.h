// One row of attention scores: softmax with dropout, forward and backward.
#pragma once

#include <math.h>

#include "rows/philox.h"

namespace memofast::MEMOFAST_VARIANT {

// e^x for x <= 88, at least e^-87.5; relative error about 1e-7.
MEMOFAST_FUNCTION float exponential(float x) {
    x = x < -87.0f ? -87.5f : x;
    const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounds to nearest
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const int32_t bits = (int32_t(n) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, 4);
    return y * power;
}

struct SoftmaxRow {
    float maximum, sum;
};

// scores [count] become exp(scale (scores - maximum)), zero where dropped; `sum` counts the dropped ones too.
template <bool kDropout>
MEMOFAST_FUNCTION SoftmaxRow softmax_row(float* scores, int64_t count, float scale, const uint16_t* lanes, uint32_t threshold) {
    float maximum = -INFINITY, sum = 0;
#pragma omp simd reduction(max : maximum)
    for (int64_t j = 0; j < count; ++j) {
        scores[j] *= scale;
        maximum = scores[j] > maximum ? scores[j] : maximum;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; ++j) {
        const float e = exponential(scores[j] - maximum);
        sum += e;
        scores[j] = !kDropout || lanes[j] >= threshold ? e : 0.0f;
    }
    return {maximum, sum};
}

// scores become the probabilities as used (dropped, scaled by keep_scale), grads (of those) the gradients of the scores.
template <bool kDropout>
MEMOFAST_FUNCTION void softmax_backward_row(float* scores, float* grads, int64_t count, float scale, float lse,
                                            const uint16_t* lanes, uint32_t threshold, float keep_scale) {
    float shift = 0;
#pragma omp simd reduction(+ : shift)
    for (int64_t j = 0; j < count; ++j) {
        const float probability = exponential(scores[j] * scale - lse);
        if (kDropout) grads[j] = lanes[j] >= threshold ? grads[j] * keep_scale : 0.0f;
        shift += probability * grads[j];
        scores[j] = probability;
    }
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) {
        grads[j] = scores[j] * (grads[j] - shift) * scale;
        if (kDropout) scores[j] = lanes[j] >= threshold ? scores[j] * keep_scale : 0.0f;
    }
}

}  // namespace memofast::MEMOFAST_VARIANT
