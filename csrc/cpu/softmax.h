// One row of attention scores: softmax with dropout, forward and backward.
//
// Rows are aligned arrays of whole vectors: past `count`, up to the end of the last vector, they hold room, which is
// read, ignored and written zero. A 16-bit lane of the dropout is kept where it is at least the threshold.
#pragma once

#include <math.h>

#include "rows/vectors.h"

namespace memofast::MEMOFAST_VARIANT {

struct SoftmaxRow {
    float maximum, sum;
};

MEMOFAST_FUNCTION Ints kept(const uint16_t* lanes, int threshold) {
    return __builtin_convertvector(*reinterpret_cast<const Halves*>(lanes), Ints) >= threshold;
}

// scores become exp(scale scores - maximum), zero where dropped; `sum` counts the dropped ones too.
template <bool kDropout>
MEMOFAST_FUNCTION SoftmaxRow softmax_row(float* scores, int count, float scale, const uint16_t* lanes, int threshold) {
    Floats most = Floats{} - INFINITY, total = {};
    for (int j = 0; j < count; j += kLanes) {
        const Floats score = counting() < count - j ? floats(scores + j) * scale : Floats{} - INFINITY;
        most = score > most ? score : most;
        floats(scores + j) = score;
    }
    const float maximum = largest(most);
    for (int j = 0; j < count; j += kLanes) {
        const Floats e = counting() < count - j ? exponential(floats(scores + j) - maximum) : Floats{};
        total += e;
        floats(scores + j) = kDropout ? (kept(lanes + j, threshold) ? e : Floats{}) : e;
    }
    return {maximum, sum(total)};
}

// scores become the probabilities as used (dropped, scaled by keep_scale),
// grads (of those) the gradients of the scores.
template <bool kDropout>
MEMOFAST_FUNCTION void softmax_backward_row(float* scores, float* grads, int count, float scale, float lse,
                                            const uint16_t* lanes, int threshold, float keep_scale) {
    Floats products = {};
    for (int j = 0; j < count; j += kLanes) {
        const Floats probability = counting() < count - j ? exponential(floats(scores + j) * scale - lse) : Floats{};
        Floats grad = floats(grads + j);
        if (kDropout) grad = kept(lanes + j, threshold) ? grad * keep_scale : Floats{};
        products += probability * grad;
        floats(scores + j) = probability;
        floats(grads + j) = grad;
    }
    const float shift = sum(products);
    for (int j = 0; j < count; j += kLanes) {
        const Floats probability = floats(scores + j);
        floats(grads + j) = probability * (floats(grads + j) - shift) * scale;
        if (kDropout) floats(scores + j) = kept(lanes + j, threshold) ? probability * keep_scale : Floats{};
    }
}

}  // namespace memofast::MEMOFAST_VARIANT
