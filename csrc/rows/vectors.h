// Vectors of this variant's width, written with the compiler's vector extension:
// arithmetic that must not depend on how well a loop is vectorised.
#pragma once

#include "rows/philox.h"
#include "rows/wide.h"

namespace memofast::MEMOFAST_VARIANT {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes), may_alias));
typedef float AnyFloats __attribute__((vector_size(4 * kLanes), may_alias, aligned(4)));  // at any address
typedef int32_t Ints __attribute__((vector_size(4 * kLanes), may_alias));
typedef uint32_t Units __attribute__((vector_size(4 * kLanes), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), may_alias, aligned(2)));

MEMOFAST_FUNCTION Units float_bits(Floats values) { return (Units)values; }
MEMOFAST_FUNCTION Floats bits_float(Units bits) { return (Floats)bits; }

MEMOFAST_FUNCTION Floats& floats(float* values) { return *reinterpret_cast<Floats*>(values); }

MEMOFAST_FUNCTION Ints counting() {
    Ints n;
    for (int i = 0; i < kLanes; ++i) n[i] = i;
    return n;
}

MEMOFAST_FUNCTION float sum(Floats values) {
    float total = 0;
    for (int i = 0; i < kLanes; ++i) total += values[i];
    return total;
}

MEMOFAST_FUNCTION float largest(Floats values) {
    float most = values[0];
    for (int i = 1; i < kLanes; ++i) most = values[i] > most ? values[i] : most;
    return most;
}

// e^x for x <= 88, at least e^-87.5; relative error about 1e-7.
MEMOFAST_FUNCTION Floats exponential(Floats x) {
    x = x < -87.0f ? Floats{} - 87.5f : x;
    const Floats n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounds to nearest
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    return y * (Floats)((__builtin_convertvector(n, Ints) + 127) << 23);
}

// bf16 in the upper half of each unit, rounded to nearest even; the lower half is zero. A NaN stays one.
MEMOFAST_FUNCTION Units rounded_bf16(Floats values) {
    const Units bits = (Units)values;
    const Units rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
    return values == values ? rounded : Units{} + 0x7FC00000u;
}

// `draw` for kLanes / 2 positions; a lane's upper half must be ignored.
MEMOFAST_FUNCTION void draw(Key key, int64_t sample_key, Wide positions, uint32_t block, Wide words[4]) {
    Wide c0 = Wide{} + uint64_t(sample_key), c1 = c0 >> 32, c2 = positions, c3 = Wide{} + block;
    Wide low = Wide{} + key.low, high = Wide{} + key.high;
    for (int round = 0; round < 10; ++round) {
        const Wide a = wide_product(c0, 0xD2511F53u), b = wide_product(c2, 0xCD9E8D57u);
        c0 = (b >> 32) ^ c1 ^ low;
        c1 = b;
        c2 = (a >> 32) ^ c3 ^ high;
        c3 = a;
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

}  // namespace memofast::MEMOFAST_VARIANT
