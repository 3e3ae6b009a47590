// Rows on the CPU: threads take chunks of 64 rows; sums over rows are one partial per chunk,
// added in the order of chunks.
#pragma once

#include "rows/lanes.h"

namespace memofast::MEMOFAST_VARIANT {

constexpr int kMaxWidth = 8192;  // of a row held on the stack

// Which sample a row belongs to; rows are asked for in ascending order.
struct SampleCursor {
    const int32_t* offsets;  // or null: one sample of all rows
    int samples, sample;
    int64_t rows;

    SampleCursor(const int32_t* offsets_, int samples_, int64_t rows_, int64_t first)
        : offsets(offsets_), samples(samples_), sample(0), rows(rows_) {
        int low = 0, high = samples;  // the first sample that ends after `first`
        while (offsets && low < high) {
            const int middle = (low + high) / 2;
            if (offsets[middle + 1] > first) high = middle;
            else low = middle + 1;
        }
        sample = low;
    }
    bool inside(int64_t row) {
        if (!offsets) return true;
        while (sample < samples && offsets[sample + 1] <= row) ++sample;
        return sample < samples;
    }
    uint32_t position(int64_t row) const { return offsets ? uint32_t(row - offsets[sample]) : uint32_t(row); }
};

inline bool good_offsets(const int32_t* offsets, int samples, int64_t rows) {
    if (!offsets) return true;
    if (offsets[0] != 0 || offsets[samples] > rows) return false;
    for (int b = 0; b < samples; ++b)
        if (offsets[b + 1] < offsets[b]) return false;
    return true;
}

// sums[c] = partials[0][c] + partials[1][c] + ... , both `columns` wide.
inline void add_partials(const float* partials, int64_t chunks, int64_t columns, float* sums) {
    const int64_t tile = 256;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < columns; first += tile) {
        const int64_t count = columns - first < tile ? columns - first : tile;
        memset(sums + first, 0, count * sizeof(float));
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const float* partial = partials + chunk * columns + first;
            MEMOFAST_SIMD for (int64_t c = 0; c < count; ++c) sums[first + c] += partial[c];
        }
    }
}

}  // namespace memofast::MEMOFAST_VARIANT
