// Matrix products of a warp on 16 x 16 tiles, the same for 16-bit types (mma.m16n8k16) and fp32 (three mma.m16n8k8 of
// tf32 parts). Of a tile, lane 4 g + t holds pairs of neighbours along k, in both cases of the same elements:
//     left operand    [16 rows, 16 k]     pair 0: row g, k 2t; 1: row g + 8; 2 and 3: the same at k + 8
//     right operand   [16 k, 8 columns]   pair 0: column g, k 2t; 1: k + 8
//     accumulator     [16 rows, 8 columns]   row g, columns 2t and 2t + 1; then row g + 8
// so that two neighbouring accumulators are a left operand as they are.
#pragma once

#include "cuda/ptx.cuh"
#include "rows/lanes.h"

namespace memofast::cuda {

template <class T>
struct PairOf {
    using type = uint32_t;
};

template <>
struct PairOf<float> {
    using type = float2;
};

template <class T>
struct Left {
    typename PairOf<T>::type pair[4];
};

// Two right operands side by side: 16 columns.
template <class T>
struct Right {
    typename PairOf<T>::type pair[2][2];
};

// One of `parts` tensors in shared memory, whose rows of `width` elements lie side by side; 16 bytes more (fp32:
// 32) keep the rows of a tile in different banks.
template <class T, int width, int parts>
struct SharedRows {
    using Element = T;
    static constexpr int kStride = parts * width + (sizeof(T) == 4 ? 8 : 16 / int(sizeof(T)));
    T* at;

    __device__ __forceinline__ T* row(int number) const { return at + number * kStride; }
};

template <class T, int width, int parts>
__device__ __forceinline__ Left<T> load_left(SharedRows<T, width, parts> rows, int first, int k) {
    const int lane = threadIdx.x % 32;
    Left<T> left;
    if constexpr (sizeof(T) == 2) {
        load_matrices(left.pair, rows.row(first + lane % 16) + k + lane / 16 * 8);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            left.pair[i] =
                *reinterpret_cast<const float2*>(rows.row(first + lane / 4 + i % 2 * 8) + k + i / 2 * 8 + lane % 4 * 2);
    }
    return left;
}

// 16 columns, each a row of memory.
template <class T, int width, int parts>
__device__ __forceinline__ Right<T> load_right(SharedRows<T, width, parts> rows, int first, int k) {
    const int lane = threadIdx.x % 32;
    Right<T> right;
    if constexpr (sizeof(T) == 2) {
        uint32_t m[4];
        load_matrices(m, rows.row(first + lane % 8 + lane / 16 * 8) + k + lane / 8 % 2 * 8);
        right = {{{m[0], m[1]}, {m[2], m[3]}}};
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            right.pair[i / 2][i % 2] =
                *reinterpret_cast<const float2*>(rows.row(first + lane / 4 + i / 2 * 8) + k + i % 2 * 8 + lane % 4 * 2);
    }
    return right;
}

// 16 columns of memory; k counts its rows.
template <class T, int width, int parts>
__device__ __forceinline__ Right<T> load_right_across(SharedRows<T, width, parts> rows, int k, int first) {
    const int lane = threadIdx.x % 32;
    Right<T> right;
    if constexpr (sizeof(T) == 2) {
        uint32_t m[4];
        load_matrices_transposed(m, rows.row(k + lane % 16) + first + lane / 16 * 8);
        right = {{{m[0], m[1]}, {m[2], m[3]}}};
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const T* at = rows.row(k + i % 2 * 8 + lane % 4 * 2) + first + i / 2 * 8 + lane / 4;
            right.pair[i / 2][i % 2] = {at[0], at[rows.kStride]};
        }
    }
    return right;
}

template <class T>
__device__ __forceinline__ typename PairOf<T>::type pair_of(float low, float high) {
    if constexpr (sizeof(T) == 2) return pack<T>(low, high);
    else return {low, high};
}

template <class T>
__device__ __forceinline__ Left<T> left_of(const float (&tiles)[2][4]) {
    return {{pair_of<T>(tiles[0][0], tiles[0][1]), pair_of<T>(tiles[0][2], tiles[0][3]),
             pair_of<T>(tiles[1][0], tiles[1][1]), pair_of<T>(tiles[1][2], tiles[1][3])}};
}

// The nearest number that tf32 can hold; what it lacks is held by a second one, cut off where it is read. A NaN, whose
// bits may carry over into a zero here, shows there.
__device__ __forceinline__ uint32_t tf32(float value) { return (float_bits(value) + 0x1000u) & 0xFFFFE000u; }
__device__ __forceinline__ uint32_t tf32_rest(float value) { return float_bits(value - bits_float(tf32(value))); }

// Tensor cores cut off what they add to c, and long sums of fp32 would drift by it:
// the sum of 16 is added to c outside of them.
__device__ __forceinline__ void multiply_add_float(float (&c)[4], const float2 (&a)[4], const float2 (&b)[2]) {
    float sum[4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // k 2t and 2t + 1 take the places t and t + 4, on both sides
        const float left[4] = {a[2 * half].x, a[2 * half + 1].x, a[2 * half].y, a[2 * half + 1].y};
        const float right[2] = {b[half].x, b[half].y};
        const uint32_t head[4] = {tf32(left[0]), tf32(left[1]), tf32(left[2]), tf32(left[3])};
        const uint32_t rest[4] = {tf32_rest(left[0]), tf32_rest(left[1]), tf32_rest(left[2]), tf32_rest(left[3])};
        const uint32_t other[2] = {tf32(right[0]), tf32(right[1])};
        multiply_add_tf32(sum, head, other);
        multiply_add_tf32(sum, head, {tf32_rest(right[0]), tf32_rest(right[1])});
        multiply_add_tf32(sum, rest, other);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] += sum[i];
}

// Two accumulators side by side += left times right.
template <class T>
__device__ __forceinline__ void multiply_add_tile(float (&first)[4], float (&second)[4], const Left<T>& left,
                                                  const Right<T>& right) {
    if constexpr (sizeof(T) == 2) {
        multiply_add<T>(first, left.pair, right.pair[0]);
        multiply_add<T>(second, left.pair, right.pair[1]);
    } else {
        multiply_add_float(first, left.pair, right.pair[0]);
        multiply_add_float(second, left.pair, right.pair[1]);
    }
}

// The four words of four neighbouring lanes, transposed: lane t gets word t of each.
__device__ __forceinline__ void transpose_in_quad(uint32_t (&words)[4]) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        const bool upper = threadIdx.x & step;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i & step) continue;
            const uint32_t got = __shfl_xor_sync(~0u, upper ? words[i] : words[i | step], step);
            words[i] = upper ? got : words[i];
            words[i | step] = upper ? words[i | step] : got;
        }
    }
}

// Stores accumulators [16, width], row g times factor[0] and row g + 8 times factor[1]; only the first `count` rows.
template <class T, int width>
__device__ __forceinline__ void store_tile(const float (&sums)[width / 8][4], const float (&factor)[2], T* target,
                                           int64_t stride, int count) {
    const int row = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        T* at = target + (row + 8 * half) * stride;
        const bool inside = row + 8 * half < count;
        if constexpr (sizeof(T) == 2) {
#pragma unroll
            for (int first = 0; first < width / 8; first += 4) {
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    words[i] =
                        pack<T>(sums[first + i][2 * half] * factor[half], sums[first + i][2 * half + 1] * factor[half]);
                transpose_in_quad(words);
                if (inside) *reinterpret_cast<uint4*>(at + (first + t) * 8) = {words[0], words[1], words[2], words[3]};
            }
        } else {
#pragma unroll
            for (int i = 0; i < width / 8; ++i)
                if (inside)
                    *reinterpret_cast<float2*>(at + i * 8 + 2 * t) = {sums[i][2 * half] * factor[half],
                                                                      sums[i][2 * half + 1] * factor[half]};
        }
    }
}

}  // namespace memofast::cuda
