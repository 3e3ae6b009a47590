#include "masked_batch.h"
#include "rows/span_mask.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace memofast::MEMOFAST_VARIANT {
namespace {

// Where targets are values whose sign bit differs from that of `flip`. Returns all targets;
// writes as many as there is room for.
int64_t list_rows(const int32_t* values, int64_t rows, int32_t flip, int32_t* indices, int64_t capacity) {
    int64_t slot = 0, row = 0;
#if defined(__AVX512F__)
    const __m512i flips = _mm512_set1_epi32(flip), step = _mm512_set1_epi32(16);
    __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; row + 16 <= rows && slot + 16 <= capacity; row += 16) {
        const __mmask16 found = _mm512_movepi32_mask(_mm512_xor_si512(_mm512_loadu_si512(values + row), flips));
        _mm512_storeu_si512(indices + slot, _mm512_maskz_compress_epi32(found, numbers));
        numbers = _mm512_add_epi32(numbers, step);
        slot += __builtin_popcount(found);
    }
#endif
    for (; row < rows && slot < capacity; ++row) {
        indices[slot] = int32_t(row);  // stays where it is a target, or else the next row takes its place
        slot += (values[row] ^ flip) < 0;
    }
    int64_t targets = slot;
    for (; row < rows; ++row) targets += (values[row] ^ flip) < 0;
    for (; slot < capacity; ++slot) indices[slot] = 0;
    return targets;
}

}  // namespace

int list_targets(const MaskedValues& masked, const TargetList& list) {
    const int64_t targets =
        list_rows(masked.values, masked.rows, masked.negative ? 0 : -1, list.indices, list.capacity);
    *list.count = int32_t(targets);
    *list.overflow = targets > list.capacity;
    if (masked.negative)
        for (int64_t row = 0; row < masked.rows; ++row) masked.values[row] = settled(masked.values[row]);
    return kSuccess;
}

}  // namespace memofast::MEMOFAST_VARIANT
