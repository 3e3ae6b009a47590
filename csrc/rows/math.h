// The normal distribution by polynomials, so that loops over it vectorise and agree between compilers.
#pragma once

#include "rows/lanes.h"

namespace memofast::MEMOFAST_VARIANT {

constexpr float kFarTail = 13.0f;  // |v| is cut here: beyond, the tail is below 1e-37

// e^(-a^2/2) for a in [0, 13]: 2^f by a minimax polynomial on [-1/2, 1/2] (relative error 2e-9 before rounding).
MEMOFAST_FUNCTION float bell(float a) {
    const float square = a * a;
    const float shifted = square * -0.721347520f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer in the low bits
    const float f = square * -0.721347520f - (shifted - 12582912.0f);
    float y = 0.000153458166f;
    y = y * f + 0.00133999309f;
    y = y * f + 0.00961848907f;
    y = y * f + 0.0555032864f;
    y = y * f + 0.240226462f;
    y = y * f + 0.693147182f;
    y = y * f + 1.0f;
    return bits_float(float_bits(y) + (float_bits(shifted) << 23));
}

// P(Z > a) / e^(-a^2/2) for a in [0, 13], by a minimax quotient (relative error 5e-9 before rounding).
MEMOFAST_FUNCTION float tail_over_bell(float a) {
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
    return above / below;
}

MEMOFAST_FUNCTION float cut_magnitude(float v) {
    const float a = __builtin_fabsf(v);
    return a > kFarTail ? kFarTail : a;
}

// v Phi(v) without cancellation: the positive part of v less |v| times the tail.
MEMOFAST_FUNCTION float gelu(float v) {
    const float a = cut_magnitude(v), positive = 0.5f * v + 0.5f * __builtin_fabsf(v);  // NaN stays NaN
    return positive - a * bell(a) * tail_over_bell(a);
}

// Phi(v) + v phi(v): what is lacking to 1 for positive v is its value at -v.
MEMOFAST_FUNCTION float gelu_derivative(float v) {
    const float a = cut_magnitude(v);
    const float negative = bell(a) * (tail_over_bell(a) - a * 0.398942280f);
    return v < 0.0f ? negative : 1.0f - negative;
}

}  // namespace memofast::MEMOFAST_VARIANT
