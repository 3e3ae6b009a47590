// A CPU vector of 64-bit elements and the 32 x 32 -> 64 bit product, which compilers do not find by themselves.
#pragma once

#include "variant.h"

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

}  // namespace memofast::MEMOFAST_VARIANT
