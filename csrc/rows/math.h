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

constexpr float kNear = 4.75f;  // the short forms are 0 or v, 0 or 1 beyond: Phi(-4.75) is 1e-6

MEMOFAST_FUNCTION float cut_near(float v) {  // NaN stays NaN
    const float below = kNear < v ? kNear : v;
    return -kNear > below ? -kNear : below;
}

// c[0] + c[1] u + ... + c[10] u^10 as even and odd powers, so that half of the products need not wait.
MEMOFAST_FUNCTION float eleven_terms(const float (&c)[11], float u) {
    const float u2 = u * u;
    const float even = ((((c[10] * u2 + c[8]) * u2 + c[6]) * u2 + c[4]) * u2 + c[2]) * u2 + c[0];
    const float odd = (((c[9] * u2 + c[7]) * u2 + c[5]) * u2 + c[3]) * u2 + c[1];
    return odd * u + even;
}

MEMOFAST_FUNCTION float near_square(float t) { return t * t * 0.0886426593f - 1.0f; }  // [-kNear, kNear] to [-1, 1]

// v Phi(v) for results of 16 bits, absolute error 5e-6: Phi - 1/2 as v times a minimax polynomial in v^2, exact at both ends.
MEMOFAST_FUNCTION float gelu_short(float v) {
    constexpr float c[11] = {0.148748353f,  -0.0736693367f,  0.0532334894f,  -0.0405298248f,  0.0303951204f, -0.0218571331f,
                             0.0135228038f, -0.00677477149f, 0.00472872844f, -0.00401027594f, 0.00147599843f};
    const float t = cut_near(v), cumulative = t * eleven_terms(c, near_square(t)) + 0.5f;
    return v * (0.0f > cumulative ? 0.0f : cumulative);
}

// Phi(v) + v phi(v) in the same way, absolute error 3e-5.
MEMOFAST_FUNCTION float gelu_derivative_short(float v) {
    constexpr float c[11] = {0.150168344f,  -0.0817399323f, 0.0755884647f, -0.0811615735f, 0.0914153531f, -0.0995591655f,
                             0.0748276189f, -0.0335507095f, 0.0385442935f, -0.0502294973f, 0.0209599584f};
    const float t = cut_near(v);
    return t * eleven_terms(c, near_square(t)) + 0.5f;
}

}  // namespace memofast::MEMOFAST_VARIANT
