// The lanes that choose one sample's rows together, and the random words they choose by.
#pragma once

#ifdef __CUDACC__
#include "rows/philox.h"
#else
#include <string.h>

#include "rows/wide.h"
#endif

namespace memofast::MEMOFAST_VARIANT {

// One lane: a CPU thread.
struct OneLane {
    static constexpr int width = 1;
    MEMOFAST_FUNCTION int lane() const { return 0; }
    MEMOFAST_FUNCTION uint32_t ballot(bool flag) const { return flag; }
    MEMOFAST_FUNCTION int32_t sum(int32_t value) const { return value; }
    MEMOFAST_FUNCTION uint64_t smallest(uint64_t value) const { return value; }
    MEMOFAST_FUNCTION void sync() const {}
};

#ifdef __CUDACC__
// A full warp; its lanes run through these together.
struct WarpLanes {
    static constexpr int width = 32;
    __device__ __forceinline__ int lane() const { return threadIdx.x & 31; }
    __device__ __forceinline__ uint32_t ballot(bool flag) const { return __ballot_sync(~0u, flag); }
    __device__ __forceinline__ int32_t sum(int32_t value) const {
        for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
        return value;
    }
    __device__ __forceinline__ uint64_t smallest(uint64_t value) const {
        for (int step = 16; step; step /= 2) {
            const uint64_t other = __shfl_xor_sync(~0u, value, step);
            value = other < value ? other : value;
        }
        return value;
    }
    __device__ __forceinline__ void sync() const { __syncwarp(); }
};
#endif

MEMOFAST_FUNCTION int highest_bit(uint32_t bits) {
#ifdef __CUDA_ARCH__
    return 31 - __clz(bits);
#else
    return 31 - __builtin_clz(bits);
#endif
}

MEMOFAST_FUNCTION int lowest_bit(uint32_t bits) {
#ifdef __CUDA_ARCH__
    return __ffs(bits) - 1;
#else
    return __builtin_ctz(bits);
#endif
}

// words[i] = word i % 4 of draw (position + i / 4, block), for i in [0, 4 * draws).
template <int draws>
MEMOFAST_FUNCTION void draw_words(Key key, int64_t sample_key, uint32_t position, uint32_t block, uint32_t* words) {
#ifndef __CUDACC__
    if constexpr (draws % kWideElements == 0) {
        constexpr int vectors = draws / kWideElements;
        Wide positions[vectors], blocks[vectors], drawn[4][vectors];
        for (Wide& element : blocks) element = Wide{} + uint64_t{block};
        count_wide<vectors>(position, positions);
        draw_wide<vectors>(key, sample_key, positions, blocks, drawn);
        uint64_t pairs[2 * draws];
        store_draws<vectors>(drawn, pairs);
        memcpy(words, pairs, sizeof pairs);
        return;
    }
#endif
    for (int i = 0; i < draws; ++i) {
        const Words four = draw(key, sample_key, position + uint32_t(i), block);
        for (int word = 0; word < 4; ++word) words[4 * i + word] = four.word[word];
    }
}

// Word `index % 4` of draw (index / 4, block), remembering the last few draws: neighbours share them.
template <int draws>
struct WordReader {
    Key key;
    int64_t sample_key;
    uint32_t block;
    uint32_t window = ~0u;
    uint32_t words[4 * draws];

    MEMOFAST_FUNCTION uint32_t operator()(uint32_t index) {
        if (index / (4 * draws) != window) {
            window = index / (4 * draws);
            draw_words<draws>(key, sample_key, window * draws, block, words);
        }
        return words[index % (4 * draws)];
    }
};

// words[i] = word i % 4 of draw (i / 4, block), for i in [0, count).
template <class Lanes>
MEMOFAST_FUNCTION void fill_words(const Lanes& lanes, Key key, int64_t sample_key, uint32_t block, int32_t count,
                                  int32_t* words) {
    int32_t quad = 0;
    for (; Lanes::width == 1 && count - 4 * quad > 16; quad += 8) {
        uint32_t many[32];
        draw_words<8>(key, sample_key, uint32_t(quad), block, many);
        const int32_t wanted = count - 4 * quad < 32 ? count - 4 * quad : 32;
        for (int32_t i = 0; i < wanted; ++i) words[4 * quad + i] = int32_t(many[i]);
    }
    for (quad += lanes.lane(); 4 * quad < count; quad += Lanes::width) {
        const Words four = draw(key, sample_key, uint32_t(quad), block);
        for (int word = 0; word < 4; ++word)
            if (4 * quad + word < count) words[4 * quad + word] = int32_t(four.word[word]);
    }
    lanes.sync();
}

}  // namespace memofast::MEMOFAST_VARIANT
