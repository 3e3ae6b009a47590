// Threads take rows; a row's blocks of eight channels are drawn side by side, those of several rows where a row is
// narrow.
#include "../keep_factors.h"

#include <cstring>

#include "rows/lanes.h"
#include "rows/wide.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kVectors = 4, kDraws = kVectors * kWideElements;

struct Place {
    int64_t row, block;
};

// Of blocks [first, first + count) of a sample, counted over its rows.
void fill(const KeepFactorsArguments& a, Key key, int64_t sample, int64_t first, int count, int64_t blocks) {
    Place places[kDraws];
    uint64_t rows[kDraws], columns[kDraws];
    Place at = {first / blocks, first % blocks};
    for (int i = 0; i < kDraws; ++i) {
        places[i] = at, rows[i] = uint64_t(at.row), columns[i] = uint64_t(at.block);
        if (++at.block == blocks) at = {at.row + 1, 0};
    }
    Wide positions[kVectors], numbers[kVectors], drawn[4][kVectors];
    memcpy(positions, rows, sizeof rows), memcpy(numbers, columns, sizeof columns);
    draw_wide<kVectors>(key, a.sample_keys[sample], positions, numbers, drawn);
    uint64_t words[2 * kDraws];
    store_draws<kVectors>(drawn, words);
    uint16_t lanes[8 * kDraws];
    memcpy(lanes, words, sizeof words);
    float factors[8 * kDraws];
    const int32_t threshold = int32_t(a.threshold);
    const float scale = a.scale;
    MEMOFAST_SIMD for (int i = 0; i < 8 * kDraws; ++i) factors[i] = int32_t(lanes[i]) >= threshold ? scale : 0.0f;
    for (int i = 0; i < count; ++i) {
        const int64_t channel = 8 * places[i].block, left = a.width - channel;
        float* out = a.factors + (sample * a.rows + places[i].row) * a.width + channel;
        if (left >= 8) memcpy(out, factors + 8 * i, 8 * sizeof(float));
        else memcpy(out, factors + 8 * i, size_t(left) * sizeof(float));
    }
}

}  // namespace

int keep_factors(const KeepFactorsArguments& a) {
    const Key key = stream_key(a.rng, a.purpose, a.site);
    const int64_t blocks = (a.width + 7) / 8, own = a.rows * blocks, parts = (own + kDraws - 1) / kDraws;
    const int64_t all = a.samples * parts;
#pragma omp parallel for schedule(static) if (all > 256)
    for (int64_t part = 0; part < all; ++part) {
        const int64_t sample = part / parts, first = part % parts * kDraws, left = own - first;
        fill(a, key, sample, first, int(left < kDraws ? left : kDraws), blocks);
    }
    return kSuccess;
}

}  // namespace memofast::MEMOFAST_VARIANT
