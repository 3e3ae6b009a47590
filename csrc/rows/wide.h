// A CPU vector of 64-bit elements and the 32 x 32 -> 64 bit product, which compilers do not find by themselves.
#pragma once

#include "rows/philox.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace memofast::MEMOFAST_VARIANT {

#if defined(__AVX512F__)
constexpr int kWideElements = 8;
#elif defined(__AVX2__)
constexpr int kWideElements = 4;
#else
constexpr int kWideElements = 2;
#endif

typedef uint64_t Wide __attribute__((vector_size(8 * kWideElements)));

// The low half of every element times `factor`.
MEMOFAST_FUNCTION Wide wide_product(Wide value, uint32_t factor) {
#if defined(__AVX512F__)
    return Wide(_mm512_maskz_mul_epu32(0xFF, __m512i(value), _mm512_set1_epi64(factor)));
#elif defined(__AVX2__)
    return Wide(_mm256_mul_epu32(__m256i(value), _mm256_set1_epi64x(factor)));
#elif defined(__x86_64__)
    return Wide(_mm_mul_epu32(__m128i(value), _mm_set1_epi64x(factor)));
#else
    return (value & 0xFFFFFFFFu) * uint64_t{factor};
#endif
}

// words[i][v]: word i of one draw per element, at these positions and blocks. A word is the low half of its element;
// what the high half holds is arbitrary, as only the product reads its operand, and its low half alone.
template <int vectors>
MEMOFAST_FUNCTION void draw_wide(Key key, int64_t sample_key, const Wide* positions, const Wide* blocks,
                                 Wide (*words)[vectors]) {
    for (int v = 0; v < vectors; ++v) {
        words[0][v] = Wide{} + uint64_t(sample_key);
        words[1][v] = Wide{} + (uint64_t(sample_key) >> 32);
        words[2][v] = positions[v];
        words[3][v] = blocks[v];
    }
    for (int round = 0; round < 10; ++round) {
        for (int v = 0; v < vectors; ++v) {
            const Wide a = wide_product(words[0][v], 0xD2511F53u), b = wide_product(words[2][v], 0xCD9E8D57u);
            words[0][v] = (b >> 32) ^ words[1][v] ^ uint64_t{key.low};
            words[1][v] = b;
            words[2][v] = (a >> 32) ^ words[3][v] ^ uint64_t{key.high};
            words[3][v] = a;
        }
        key.low += 0x9E3779B9u;
        key.high += 0xBB67AE85u;
    }
}

// 0, 1, 2 ..., as a constant: written element by element, compilers compute it anew at every use.
MEMOFAST_FUNCTION Wide counting_wide() {
    constexpr uint64_t numbers[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    Wide counting;
    __builtin_memcpy(&counting, numbers, sizeof counting);
    return counting;
}

// elements[v][i] = first + v * kWideElements + i.
template <int vectors>
MEMOFAST_FUNCTION void count_wide(uint64_t first, Wide* elements) {
    for (int v = 0; v < vectors; ++v) elements[v] = counting_wide() + (first + uint64_t(v * kWideElements));
}

// Draws as eight-byte halves in order: out[2 i] = words 0 and 1 of draw i,
// out[2 i + 1] = words 2 and 3 (little-endian).
template <int vectors>
MEMOFAST_FUNCTION void store_draws(const Wide (*words)[vectors], uint64_t* out) {
    for (int v = 0; v < vectors; ++v) {
        const Wide front = (words[0][v] & 0xFFFFFFFFu) | (words[1][v] << 32),
                   back = (words[2][v] & 0xFFFFFFFFu) | (words[3][v] << 32);
        const Wide alternate = (counting_wide() >> 1) + (counting_wide() & 1) * kWideElements;
        const Wide lower = __builtin_shuffle(front, back, alternate);
        const Wide upper = __builtin_shuffle(front, back, alternate + kWideElements / 2);
        __builtin_memcpy(out + 2 * v * kWideElements, &lower, sizeof lower);
        __builtin_memcpy(out + (2 * v + 1) * kWideElements, &upper, sizeof upper);
    }
}

}  // namespace memofast::MEMOFAST_VARIANT
