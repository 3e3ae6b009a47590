// The normal distribution by polynomials, so that it vectorises and agrees between compilers.
// V is float or a vector of floats.
#pragma once

#include "rows/packets.h"

namespace memofast::MEMOFAST_VARIANT {

constexpr float kFarTail = 13.0f;  // |v| is cut here: beyond, the tail is below 1e-37

template <class V>
MEMOFAST_FUNCTION V magnitude(V v) {
    return bits_float(float_bits(v) & 0x7FFFFFFFu);
}

template <class V>
MEMOFAST_FUNCTION V at_most(V v, float bound) {  // NaN stays NaN
    const V bounds = V{} + bound;
    return bounds < v ? bounds : v;
}

template <class V>
MEMOFAST_FUNCTION V at_least(V v, float bound) {  // NaN stays NaN
    const V bounds = V{} + bound;
    return bounds > v ? bounds : v;
}

// c[0] + c[1] u + c[2] u^2 + ...
template <int terms, class V>
MEMOFAST_FUNCTION V polynomial(const float (&c)[terms], V u) {
    V y = V{} + c[terms - 1];
    MEMOFAST_UNROLL for (int k = terms - 2; k >= 0; --k) y = y * u + c[k];
    return y;
}

// e^(-a^2/2) for a in [0, 13]: 2^f by a minimax polynomial on [-1/2, 1/2] (relative error 2e-9 before rounding).
template <class V>
MEMOFAST_FUNCTION V bell(V a) {
    constexpr float c[7] = {1.0f, 0.693147182f, 0.240226462f, 0.0555032864f,
                            0.00961848907f, 0.00133999309f, 0.000153458166f};
    const V square = a * a;
    const V shifted = square * -0.721347520f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer in the low bits
    const V f = square * -0.721347520f - (shifted - 12582912.0f);
    return bits_float(float_bits(polynomial(c, f)) + (float_bits(shifted) << 23));
}

// P(Z > a) / e^(-a^2/2) for a in [0, 13], by a minimax quotient (relative error 5e-9 before rounding).
template <class V>
MEMOFAST_FUNCTION V tail_over_bell(V a) {
    constexpr float above[5] = {0.5f, 0.43497479f, 0.180782914f, 0.0398084037f, 0.00399429304f};
    constexpr float below[6] = {1.0f, 1.66783452f, 1.19230127f, 0.462997884f, 0.0997925177f, 0.0100120576f};
    return polynomial(above, a) / polynomial(below, a);
}

// v Phi(v) without cancellation: the positive part of v less |v| times the tail.
template <class V>
MEMOFAST_FUNCTION V gelu(V v) {
    const V a = at_most(magnitude(v), kFarTail), positive = 0.5f * v + 0.5f * magnitude(v);
    return positive - a * bell(a) * tail_over_bell(a);
}

// Phi(v) + v phi(v): what is lacking to 1 for positive v is its value at -v.
template <class V>
MEMOFAST_FUNCTION V gelu_derivative(V v) {
    const V a = at_most(magnitude(v), kFarTail);
    const V negative = bell(a) * (tail_over_bell(a) - a * 0.398942280f);
    return v < 0.0f ? negative : 1.0f - negative;
}

// The short forms are 0 or v, 0 or 1 from |v| = 128/27 on, where Phi(-|v|) is 1e-6.
constexpr float kNear = 4.74074078f;

// [0, kNear] to [-1, 1], exact at its end.
template <class V>
MEMOFAST_FUNCTION V near_scaled(V a) {
    return a * 0.421875f - 1.0f;
}

// v Phi(v) for results of 16 bits, absolute error 1.2e-5: Phi(|v|) - 1/2 by a minimax polynomial, 1/2 at the end.
template <class V>
MEMOFAST_FUNCTION V gelu_short(V v) {
    constexpr float c[11] = {0.491117179f, 0.0569172129f, -0.160163999f, 0.247783452f, -0.195711255f, 0.00321997376f,
                             0.13717249f, -0.0903524235f, -0.0143927047f, 0.032488551f, -0.00807847269f};
    const V a = magnitude(v);
    return a * polynomial(c, near_scaled(at_most(a, kNear))) + 0.5f * v;
}

// Phi(v) + v phi(v), absolute error 4.4e-5: 1/2 + v times a minimax polynomial in |v|.
template <class V>
MEMOFAST_FUNCTION V gelu_derivative_short(V v) {
    constexpr float c[11] = {0.231205598f, -0.318142444f, 0.428795099f, -0.345082521f, -0.0584974363f, 0.44035241f,
                             -0.310533881f, -0.110395052f, 0.19060871f, -0.0137179326f, -0.0291237962f};
    const V t = at_least(at_most(v, kNear), -kNear);
    return t * polynomial(c, near_scaled(magnitude(t))) + 0.5f;
}

}  // namespace memofast::MEMOFAST_VARIANT
