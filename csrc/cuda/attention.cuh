// What forward and backward of attention share: a block is one head of one sequence, its rows lie in
// shared memory, and each of its warps owns 16 of them at a time. Queries or keys of more than
// `capacity` rows are read in chunks of that many.
#pragma once

#include <type_traits>

#include "cuda/fragments.cuh"
#include "launch.cuh"
#include "rows/attention.h"

namespace memofast::cuda {

constexpr int kTile = 16, kMostWarps = 6;
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

__host__ __device__ inline int tiles_of(int rows) { return (rows + kTile - 1) / kTile; }

struct Sequence {
    SequenceRows keys, queries;
    int sample, head;
};

// `apart`: queries have rows of their own. A constant,
// as two places kept would take registers from the sums of all launches.
template <bool apart>
__device__ __forceinline__ Sequence this_sequence(const AttentionArguments& a) {
    const int sample = int(blockIdx.x / a.heads), head = int(blockIdx.x % a.heads);
    const SequenceRows keys = keys_of(a, sample);
    return {keys, apart ? queries_of(a, sample, keys) : keys, sample, head};
}

// One head of a tensor of rows.
template <class T>
struct HeadRows {
    T* at;
    int stride;

    __device__ __forceinline__ T* row(int number) const { return at + int64_t(number) * stride; }
};

template <int width, class T>
__device__ __forceinline__ HeadRows<T> query_rows(T* q, const AttentionArguments& a, const Sequence& s) {
    const int stride = int(a.q_step);
    return {q + unkept(int64_t(s.queries.first)) * stride + s.head * width, stride};
}

// part: 0 key, 1 value.
template <int width, class T>
__device__ __forceinline__ HeadRows<T> key_rows(T* kv, const AttentionArguments& a, const Sequence& s, int part) {
    const int stride = int(a.kv_step);
    return {kv + unkept(int64_t(s.keys.first)) * stride + (part * int(a.heads) + s.head) * width, stride};
}

// Of the output and its gradient.
template <int width, class T>
__device__ __forceinline__ HeadRows<T> out_rows(T* rows, const AttentionArguments& a, const Sequence& s) {
    const int stride = int(a.heads) * width;
    return {rows + unkept(int64_t(s.queries.first)) * stride + s.head * width, stride};
}

// Starts copying rows [first, first + count) into shared memory, and zeros up to a whole tile. A few lanes share a row.
template <class T, int width, int parts>
__device__ __forceinline__ void start_rows(SharedRows<T, width, parts> target, HeadRows<const T> source, int first,
                                           int count) {
    constexpr int elements = 16 / sizeof(T), vectors = width / elements, lanes = vectors % 8 == 0 ? 8 : 4;
    const int step = unkept(int(blockDim.x)) / lanes, column = int(threadIdx.x) % lanes * elements;
    int row = int(threadIdx.x) / lanes;
    const T* from = source.row(first + row) + column;
    T* to = target.row(row) + column;
    for (; row < tiles_of(count) * kTile; row += step) {
#pragma unroll
        for (int i = 0; i < width; i += lanes * elements) start_copy(to + i, from + i, row < count);
        from += step * source.stride;
        to += step * target.kStride;
    }
}

template <class T, int width>
__device__ void zero_rows(HeadRows<T> rows, int first, int count) {
    constexpr int elements = 16 / sizeof(T), vectors = width / elements;
    for (int64_t i = threadIdx.x; i < int64_t(count) * vectors; i += blockDim.x)
        *reinterpret_cast<uint4*>(rows.row(first + i / vectors) + i % vectors * elements) = {};
}

// Of the four lanes that share a row.
template <class Combine>
__device__ __forceinline__ float over_quad(float value, Combine combine) {
    value = combine(value, __shfl_xor_sync(~0u, value, 1));
    return combine(value, __shfl_xor_sync(~0u, value, 2));
}

// Which probabilities dropout keeps, a bit each, of the queries and keys that lie in shared memory;
// drawn while they are copied.
struct KeptBits {
    uint8_t* at;  // null without dropout
    int pitch;    // bytes of a query: keys / 8

    // One byte is one draw: a query, eight keys. `query` and `key` count from the sequence's start.
    __device__ __forceinline__ void draw_all(const AttentionArguments& a, const Sequence& s, int query, int queries,
                                             int key, int keys) const {
        if (!at || queries == 0) return;
        const Key stream = stream_key(a.rng, 2, a.site);  // philox.Purpose.ATTENTION_DROPOUT
        const int64_t sample_key = a.sample_keys[s.sample];
        const int blocks = (keys + 7) / 8;
        for (int i = threadIdx.x; i < queries * blocks; i += unkept(int(blockDim.x))) {
            const int row = i / blocks, block = i % blocks;
            const Words words =
                draw(stream, sample_key, uint32_t(s.head) << 16 | uint32_t(query + row), uint32_t(key / 8 + block));
            uint32_t kept = 0;
#pragma unroll
            for (int lane = 0; lane < 8; ++lane) kept |= lane16(words, lane) >= a.threshold ? 1u << lane : 0u;
            at[row * pitch + block] = uint8_t(kept);
        }
    }

    // Two blocks of eight keys.
    __device__ __forceinline__ uint32_t pair(int query, int key) const {
        return *reinterpret_cast<const uint16_t*>(at + query * pitch + key / 8);
    }

    // Of a tile whose rows are queries: element i of accumulator h is kept where bit 8 (h + 2 (i / 2)) + i % 2 is set.
    __device__ __forceinline__ uint32_t by_query(int query, int key) const {
        if (!at) return ~0u;
        const int row = query + threadIdx.x % 32 / 4;
        return (pair(row, key) | pair(row + 8, key) << 16) >> (threadIdx.x % 4 * 2);
    }

    // Of two accumulators whose rows are keys and whose columns are eight queries from `query` on:
    // bit 16 (i % 2) + 8 (i / 2).
    __device__ __forceinline__ uint32_t by_key(int query, int key) const {
        if (!at) return ~0u;
        const int column = query + threadIdx.x % 4 * 2;
        return (pair(column, key) | pair(column + 1, key) << 16) >> (threadIdx.x % 32 / 4);
    }
};

// How a launch is laid out: a block holds `capacity` rows, so that sequences up to that long are read once.
struct AttentionLaunch {
    int capacity, warps;
    size_t shared_bytes;
};

inline int plan_attention(const AttentionArguments& a, int bytes_per_row, int most_warps, AttentionLaunch& plan) {
    for (const void* tensor : {a.q, a.kv, a.grad, a.saved, static_cast<const void*>(a.out),
                               static_cast<const void*>(a.grad_q), static_cast<const void*>(a.grad_kv)})
        if (reinterpret_cast<uintptr_t>(tensor) % 16) return kMisaligned;
    constexpr int unknown = 160, most = 256;
    int limit = 0;
    if (const int error = most_shared_bytes(limit)) return error;
    int tiles = tiles_of(a.longest <= 0 ? unknown : a.longest < most ? int(a.longest) : most);
    const auto bytes = [&] { return tiles * kTile * (bytes_per_row + tiles * kTile / 8); };
    while (bytes() > limit) --tiles;
    if (tiles == 0) return kTooLittleShared;
    plan = {tiles * kTile, tiles < most_warps ? tiles : most_warps, size_t(bytes())};
    return kSuccess;
}

template <int value>
using Width = std::integral_constant<int, value>;

// Calls run(T, width, apart) for the types and head widths that kernels exist for.
template <class Run>
int for_type_and_width(const AttentionArguments& a, Run run) {
    const auto for_queries = [&](auto element, auto width) {
        return a.query_offsets ? run(element, width, std::true_type{}) : run(element, width, std::false_type{});
    };
    const auto for_width = [&](auto element) {
        switch (a.width) {
            case 32: return for_queries(element, Width<32>{});
            case 64: return for_queries(element, Width<64>{});
            case 96: return for_queries(element, Width<96>{});
            case 128: return for_queries(element, Width<128>{});
            default: return int(kUnsupported);
        }
    };
    switch (a.type) {
        case Type::float32: return for_width(float{});
        case Type::bfloat16: return for_width(BFloat16{});
        default: return for_width(Float16{});
    }
}

}  // namespace memofast::cuda
