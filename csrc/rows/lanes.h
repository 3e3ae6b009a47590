// The lane group: how one row is shared among lanes. On a GPU a row belongs to the 32 lanes of a
// warp; on the CPU to one lane, whose loops over a chunk the compiler vectorises. A row kernel is a
// template over the group and knows only its row:
//
//     MEMOFAST_UNROLL for (int k = 0; k < row.chunks(width); ++k) {  // the chunks of this lane
//         const Span span = group.span(k, width);                    // first channel, channels in this chunk
//         float* z = row.at(k);                                      // kChunk floats: registers, or scratch
//         load<Group::kChunk>(x + span.first, span.count, z);        // any type as float, zeros past span.count
//         MEMOFAST_SIMD for (int i = 0; i < Group::kChunk; ++i) z[i] *= 2;   // always whole chunks
//         total += sum<Group::kChunk>(z);
//     }
//     total = group.sum(total);                                      // over all lanes; every lane gets it
//
// A chunk starts at a multiple of eight channels, so that a Philox draw (eight channels) never crosses chunks.
#pragma once

#include <string.h>

#include "rows/philox.h"
#include "variant.h"

#ifndef __CUDACC__
#include "rows/wide.h"
#endif

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define MEMOFAST_UNROLL _Pragma("unroll")
#define MEMOFAST_SIMD _Pragma("unroll")
#define MEMOFAST_SIMD_SUM(variable) _Pragma("unroll")
#else
#define MEMOFAST_PRAGMA(text) _Pragma(#text)
#define MEMOFAST_UNROLL
#define MEMOFAST_SIMD _Pragma("omp simd")
#define MEMOFAST_SIMD_SUM(variable) MEMOFAST_PRAGMA(omp simd reduction(+ : variable))
#endif

namespace memofast::MEMOFAST_VARIANT {

constexpr int kRowsPerChunk = 64;  // of one partial of a sum over rows

struct BFloat16 {
    uint16_t bits;
};

struct Span {
    int first, count;  // count is 0 where the chunk lies past the row's end
};

struct OneLane {
    static constexpr int kLanes = 1, kChunk = 128;

    static MEMOFAST_FUNCTION Span span(int k, int width) {
        const int first = k * kChunk, left = width - first;
        return {first, left < kChunk ? left : kChunk};
    }
    static MEMOFAST_FUNCTION float sum(float value) { return value; }
    // Where element i of chunk k lies in an array of sums over rows.
    static MEMOFAST_FUNCTION int slot(int k, int i) { return k * kChunk + i; }
};

// A row in memory of this lane's own: `floats_per_row(width)` floats.
template <class Group>
struct MemoryRow {
    float* values;

    static MEMOFAST_FUNCTION int chunks(int width) {
        return (width + Group::kLanes * Group::kChunk - 1) / (Group::kLanes * Group::kChunk);
    }
    static MEMOFAST_FUNCTION int floats_per_row(int width) { return chunks(width) * Group::kChunk; }
    MEMOFAST_FUNCTION float* at(int k) { return values + k * Group::kChunk; }
};

// A row in registers: at most `kChunks` chunks per lane.
template <class Group, int kChunks>
struct RegisterRow {
    float values[kChunks][Group::kChunk];

    static MEMOFAST_FUNCTION constexpr int chunks(int) { return kChunks; }
    MEMOFAST_FUNCTION float* at(int k) { return values[k]; }
};

MEMOFAST_FUNCTION uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

MEMOFAST_FUNCTION float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

MEMOFAST_FUNCTION float to_float(float value) { return value; }
MEMOFAST_FUNCTION float to_float(BFloat16 value) { return bits_float(uint32_t(value.bits) << 16); }

MEMOFAST_FUNCTION void from_float(float value, float& out) { out = value; }

// Round to nearest even; a NaN stays one.
MEMOFAST_FUNCTION void from_float(float value, BFloat16& out) {
    const uint32_t bits = float_bits(value);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    out.bits = uint16_t((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
}

#ifdef __CUDACC__

using Float16 = __half;

__device__ __forceinline__ float to_float(Float16 value) { return __half2float(value); }
__device__ __forceinline__ void from_float(float value, Float16& out) { out = __float2half_rn(value); }

struct Warp {
    static constexpr int kLanes = 32, kChunk = 8;
    int lane;

    __device__ __forceinline__ Span span(int k, int width) const {
        const int first = (k * kLanes + lane) * kChunk, left = width - first;
        return {first, left < 0 ? 0 : left < kChunk ? left : kChunk};
    }
    // Neighbouring lanes in neighbouring words, so that shared memory is free of conflicts.
    __device__ __forceinline__ int slot(int k, int i) const { return (k * kChunk + i) * kLanes + lane; }
    static __device__ __forceinline__ int slot_of_channel(int channel) {
        const int chunk = channel / kChunk;
        return (chunk / kLanes * kChunk + channel % kChunk) * kLanes + chunk % kLanes;
    }
    // The same order of additions in every lane.
    static __device__ __forceinline__ float sum(float value) {
        for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
        return value;
    }
};

// Eight elements in one or two 16-byte accesses.
template <class T>
struct alignas(16) Packet {
    T element[8];
};

template <int n, class T>
__device__ __forceinline__ void load(const T* source, int count, float* values) {
    static_assert(n == 8);
    if (count == n && reinterpret_cast<uintptr_t>(source) % 16 == 0) {
        const Packet<T> packet = *reinterpret_cast<const Packet<T>*>(source);
#pragma unroll
        for (int i = 0; i < n; ++i) values[i] = to_float(packet.element[i]);
    } else {
#pragma unroll
        for (int i = 0; i < n; ++i) values[i] = i < count ? to_float(source[i]) : 0.0f;
    }
}

template <int n, class T>
__device__ __forceinline__ void store(T* target, int count, const float* values) {
    static_assert(n == 8);
    if (count == n && reinterpret_cast<uintptr_t>(target) % 16 == 0) {
        Packet<T> packet;
#pragma unroll
        for (int i = 0; i < n; ++i) from_float(values[i], packet.element[i]);
        *reinterpret_cast<Packet<T>*>(target) = packet;
    } else {
#pragma unroll
        for (int i = 0; i < n; ++i)
            if (i < count) from_float(values[i], target[i]);
    }
}

#else

// `count` elements as floats, zeros from there to n.
template <int n, class T>
MEMOFAST_FUNCTION void load(const T* source, int count, float* values) {
    if (count == n) {
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) values[i] = to_float(source[i]);
    } else {
        for (int i = 0; i < count; ++i) values[i] = to_float(source[i]);
        for (int i = count; i < n; ++i) values[i] = 0.0f;
    }
}

// The first `count` of n floats, rounded to T.
template <int n, class T>
MEMOFAST_FUNCTION void store(T* target, int count, const float* values) {
    if (count == n) {
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) from_float(values[i], target[i]);
    } else {
        for (int i = 0; i < count; ++i) from_float(values[i], target[i]);
    }
}

#endif

template <int n>
MEMOFAST_FUNCTION float sum(const float* values) {
    float total = 0.0f;
    MEMOFAST_SIMD_SUM(total) for (int i = 0; i < n; ++i) total += values[i];
    return total;
}

// Dropout of hidden rows: position = row within the sample, block = channel // 8. See memofast/ops/philox.py.
struct Dropout {
    Key key;
    uint32_t threshold;  // a lane is kept where it is at least this; 0 keeps all
    float scale;         // of what is kept
};

// Lanes of the n / 8 blocks from channel `first` on, in the order of channels.
#ifdef __CUDACC__

template <int n>
MEMOFAST_FUNCTION void draw_lanes(Key key, int64_t sample_key, uint32_t position, int first, uint16_t* lanes) {
    for (int block = 0; block < n / 8; ++block) {
        const Words words = draw(key, sample_key, position, uint32_t(first / 8 + block));
        MEMOFAST_SIMD for (int i = 0; i < 8; ++i) lanes[8 * block + i] = uint16_t(lane16(words, i));
    }
}

#else

// The same for all blocks at once.
template <int n>
MEMOFAST_FUNCTION void draw_lanes(Key key, int64_t sample_key, uint32_t position, int first, uint16_t* lanes) {
    constexpr int vectors = n / 8 / kWideElements;
    static_assert(vectors * kWideElements * 8 == n);
    Wide positions[vectors], blocks[vectors], drawn[4][vectors];
    for (Wide& element : positions) element = Wide{} + uint64_t{position};
    count_wide<vectors>(uint64_t(first / 8), blocks);
    draw_wide<vectors>(key, sample_key, positions, blocks, drawn);
    uint64_t words[n / 4];  // two words are four lanes
    store_draws<vectors>(drawn, words);
    memcpy(lanes, words, sizeof words);
}

#endif

// The factor (0 or scale) of n channels from `first` on, which is a multiple of eight.
template <int n>
MEMOFAST_FUNCTION void dropout_factors(const Dropout& dropout, int64_t sample_key, uint32_t position, int first,
                                       float* factors) {
    static_assert(n % 8 == 0);
    uint16_t lanes[n];
    draw_lanes<n>(dropout.key, sample_key, position, first, lanes);
    const int32_t threshold = int32_t(dropout.threshold);
    const float scale = dropout.scale;
    MEMOFAST_SIMD for (int i = 0; i < n; ++i) factors[i] = int32_t(lanes[i]) >= threshold ? scale : 0.0f;
}

}  // namespace memofast::MEMOFAST_VARIANT
