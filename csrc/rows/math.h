// exp and the normal distribution by polynomials, so that loops over them vectorise and agree between compilers.
#pragma once

#include "rows/lanes.h"

namespace memofast::MEMOFAST_VARIANT {

// e^x for x in [-87, 88], clamped outside; relative error below 2e-7 near 0. 2^f by a minimax polynomial on [-1/2, 1/2].
MEMOFAST_FUNCTION float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer in the low bits
    const float whole = shifted - 12582912.0f;
    const float f = (x - whole * 0.693359375f + whole * 2.12194440e-4f) * 1.44269504f;
    float y = 0.000153458166f;
    y = y * f + 0.00133999309f;
    y = y * f + 0.00961848907f;
    y = y * f + 0.0555032864f;
    y = y * f + 0.240226462f;
    y = y * f + 0.693147182f;
    y = y * f + 1.0f;
    return bits_float(float_bits(y) + (float_bits(shifted) << 23));
}

struct Normal {
    float tail;     // P(Z > |v|)
    float density;  // at v
};

constexpr float kFarTail = 13.0f;  // beyond it the tail is below 1e-37

// The tail is e^(-v^2/2) times a smooth function of |v|, a minimax quotient on [0, 13] (relative error 5e-9 before rounding).
MEMOFAST_FUNCTION Normal normal_at(float v) {
    float a = v < 0.0f ? -v : v;
    a = a > kFarTail ? kFarTail : a;
    float above = 0.00399429304f;
    above = above * a + 0.0398084037f;
    above = above * a + 0.180782914f;
    above = above * a + 0.43497479f;
    above = above * a + 0.5f;
    float below = 0.0100120576f;
    below = below * a + 0.0997925177f;
    below = below * a + 0.462997884f;
    below = below * a + 1.19230127f;
    below = below * a + 1.66783452f;
    below = below * a + 1.0f;
    const float e = exponential(-0.5f * a * a);
    return {e * above / below, e * 0.398942280f};
}

// v Phi(v) without cancellation: the positive part of v less |v| times the tail.
MEMOFAST_FUNCTION float gelu(float v) {
    const float a = v < 0.0f ? -v : v, positive = v < 0.0f ? 0.0f : v;
    return positive - (a > kFarTail ? kFarTail : a) * normal_at(v).tail;
}

// Phi(v) + v phi(v).
MEMOFAST_FUNCTION float gelu_derivative(float v) {
    const Normal normal = normal_at(v);
    const float bounded = v > kFarTail ? kFarTail : v < -kFarTail ? -kFarTail : v;
    return (v < 0.0f ? normal.tail : 1.0f - normal.tail) + bounded * normal.density;
}

}  // namespace memofast::MEMOFAST_VARIANT
