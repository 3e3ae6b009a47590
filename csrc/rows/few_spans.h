// Spans of one sample of few rows, as one CPU thread chooses them: candidates lie in vectors, rows are bits.
#pragma once

#include "rows/wide.h"

namespace memofast::MEMOFAST_VARIANT {

constexpr int32_t kFewRows = 64;

typedef int64_t SignedWide __attribute__((vector_size(sizeof(Wide))));

MEMOFAST_FUNCTION int64_t smallest_element(SignedWide values) {
#pragma GCC unroll 3
    for (int64_t distance = kWideElements / 2; distance; distance /= 2) {
        const SignedWide other = __builtin_shuffle(values, SignedWide(counting_wide()) ^ distance);
        values = other < values ? other : values;
    }
    return values[0];
}

// Bits of the rows under the `spans` spans whose start has the smallest (word,
// index) among `candidates`, at most 4 * draws.
template <int draws>
MEMOFAST_FUNCTION uint64_t few_spans(Key key, int64_t sample_key, int32_t candidates, int32_t spans, int32_t length) {
    constexpr int vectors = draws / kWideElements;
    constexpr int64_t kNone = INT64_MAX;
    Wide positions[vectors], blocks[vectors] = {}, words[4][vectors];
    count_wide<vectors>(0, positions);
    draw_wide<vectors>(key, sample_key, positions, blocks, words);
    SignedWide ordered[4 * vectors];  // word << 31 | index
    for (int word = 0; word < 4; ++word) {
        for (int v = 0; v < vectors; ++v) {
            const SignedWide index = SignedWide(counting_wide()) * 4 + (4 * v * kWideElements + word);
            const SignedWide value = SignedWide((words[word][v] << 32) >> 1) | index;
            ordered[4 * v + word] = index < int64_t{candidates} ? value : kNone - SignedWide{};
        }
    }
    const uint64_t span = ~uint64_t{0} >> (kFewRows - length);
    uint64_t rows = 0;
    int64_t last = -1;
    for (int32_t chosen = 0; chosen < spans; ++chosen) {
        SignedWide best = kNone - SignedWide{};
        for (const SignedWide& value : ordered) {
            const SignedWide later = value > last ? value : kNone - SignedWide{};
            best = later < best ? later : best;
        }
        last = smallest_element(best);
        rows |= span << (last & (kFewRows - 1));
    }
    return rows;
}

// source[row] for n <= 64 rows: `target` where its bit is set, itself elsewhere. Returns the number of bits.
MEMOFAST_FUNCTION int32_t write_few(uint64_t rows, int32_t target, int32_t first, int32_t n, int32_t* source) {
#if defined(__AVX512F__)
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int32_t row = 0; row < n; row += 16) {
        const __mmask16 inside = __mmask16(n - row >= 16 ? 0xFFFF : (1 << (n - row)) - 1);
        const __m512i own = _mm512_add_epi32(_mm512_set1_epi32(first + row), count);
        _mm512_mask_storeu_epi32(source + row, inside,
                                 _mm512_mask_mov_epi32(own, __mmask16(rows >> row), _mm512_set1_epi32(target)));
    }
#else
    for (int32_t row = 0; row < n; ++row) source[row] = rows >> row & 1 ? target : first + row;
#endif
    return __builtin_popcountll(rows);
}

}  // namespace memofast::MEMOFAST_VARIANT
