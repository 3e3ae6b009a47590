// Products of small matrices that lie in cache: C = A B or C += A B, with a tile of C held in registers.
//
// All operands are counted in units of four bytes: one float, or two neighbouring bf16 values along the summed
// dimension. The left operand is broadcast unit by unit and may have any strides (so A and A^T serve alike);
// the right one is a panel [depth, columns] whose rows are aligned vectors. An arithmetic is a struct with
// `Unit`, `kDepth` (values per unit) and `dot`.
#pragma once

#include "rows/vectors.h"

namespace memofast::MEMOFAST_VARIANT {

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;
#else
constexpr int kTileRows = 6, kTileVectors = 2;
#endif

typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef int QuadIndex __attribute__((vector_size(16)));

MEMOFAST_FUNCTION int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

struct FloatArithmetic {
    using Unit = float;
    static constexpr int kDepth = 1;
    static MEMOFAST_FUNCTION void dot(Floats& sum, float left, Floats right) { sum += left * right; }
};

#if defined(__AVX512F__)
// Products of bf16 pairs, summed in fp32; needs a CPU with AVX512-BF16, which is asked for at run time.
struct PairArithmetic {
    using Unit = uint32_t;
    static constexpr int kDepth = 2;
    static MEMOFAST_FUNCTION void dot(Floats& sum, uint32_t left, Floats right) {
        const Units pair = Units{} + left;
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(pair), "v"(right));
    }
};
#endif

template <class Unit>
struct Left {
    const Unit* data;
    int64_t row_step, depth_step;
    MEMOFAST_FUNCTION Left from_row(int64_t row) const { return {data + row * row_step, row_step, depth_step}; }
};

template <class Arithmetic, int kRows, int kVectors>
static void tile(Left<typename Arithmetic::Unit> left, const typename Arithmetic::Unit* right, int64_t right_step,
                 float* c, int64_t c_step, int64_t depth, bool add) {
    Floats sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v)
            sum[r][v] = add ? *(const Floats*)(c + r * c_step + v * kLanes) : Floats{};
    for (int64_t k = 0; k < depth; ++k) {
        Floats row[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) row[v] = *(const Floats*)(right + k * right_step + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            const auto unit = left.data[r * left.row_step + k * left.depth_step];
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) Arithmetic::dot(sum[r][v], unit, row[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) *(Floats*)(c + r * c_step + v * kLanes) = sum[r][v];
}

// The last rows, fewer than a whole tile.
template <class Arithmetic, int kRows, int kVectors>
static void last_tile(int64_t rows, Left<typename Arithmetic::Unit> left, const typename Arithmetic::Unit* right,
                      int64_t right_step, float* c, int64_t c_step, int64_t depth, bool add) {
    if constexpr (kRows > 0) {
        if (rows == kRows) return tile<Arithmetic, kRows, kVectors>(left, right, right_step, c, c_step, depth, add);
        last_tile<Arithmetic, kRows - 1, kVectors>(rows, left, right, right_step, c, c_step, depth, add);
    }
}

template <class Arithmetic, int kVectors>
static void tile_column(int64_t vectors, Left<typename Arithmetic::Unit> left, const typename Arithmetic::Unit* right,
                        int64_t right_step, float* c, int64_t c_step, int64_t rows, int64_t depth, bool add) {
    if constexpr (kVectors > 0) {
        if (vectors != kVectors)
            return tile_column<Arithmetic, kVectors - 1>(vectors, left, right, right_step, c, c_step, rows, depth, add);
        int64_t r = 0;
        for (; r + kTileRows <= rows; r += kTileRows)
            tile<Arithmetic, kTileRows, kVectors>(left.from_row(r), right, right_step, c + r * c_step, c_step, depth,
                                                  add);
        last_tile<Arithmetic, kTileRows - 1, kVectors>(rows - r, left.from_row(r), right, right_step, c + r * c_step,
                                                       c_step, depth, add);
    }
}

// C [rows, columns] = (or +=, where `add`) left [rows, depth] right [depth, columns]; depth in units,
// columns a multiple of kLanes.
template <class Arithmetic>
static void product(Left<typename Arithmetic::Unit> left, const typename Arithmetic::Unit* right, int64_t right_step,
                    float* c, int64_t c_step, int64_t rows, int64_t columns, int64_t depth, bool add) {
    for (int64_t done = 0, all = columns / kLanes; done < all;) {
        const int64_t tiles = (all - done + kTileVectors - 1) / kTileVectors,
                      vectors = (all - done + tiles - 1) / tiles;
        tile_column<Arithmetic, kTileVectors>(vectors, left, right + done * kLanes, right_step, c + done * kLanes,
                                              c_step, rows, depth, add);
        done += vectors;
    }
}

// A 4x4 block of units: to[column][row] = from[row][column]; rows from `rows` on read as zero.
MEMOFAST_FUNCTION void transpose4(const void* from, int64_t from_step, void* to, int64_t to_step, int64_t rows) {
    const float* source = static_cast<const float*>(from);
    float* target = static_cast<float*>(to);
    Quad row[4];
    for (int r = 0; r < 4; ++r) row[r] = r < rows ? *(const Quad*)(source + r * from_step) : Quad{};
    constexpr QuadIndex low = {0, 4, 1, 5}, high = {2, 6, 3, 7};
    const Quad a = __builtin_shuffle(row[0], row[2], low), b = __builtin_shuffle(row[1], row[3], low);
    const Quad c = __builtin_shuffle(row[0], row[2], high), d = __builtin_shuffle(row[1], row[3], high);
    *(Quad*)(target) = __builtin_shuffle(a, b, low);
    *(Quad*)(target + to_step) = __builtin_shuffle(a, b, high);
    *(Quad*)(target + 2 * to_step) = __builtin_shuffle(c, d, low);
    *(Quad*)(target + 3 * to_step) = __builtin_shuffle(c, d, high);
}

// to [columns, to_step] = from [rows, columns] transposed, columns a multiple of 4; filled with zero up to to_step.
MEMOFAST_FUNCTION void transpose(const void* from, int64_t from_step, void* to, int64_t to_step, int64_t rows,
                                 int64_t columns) {
    const float* source = static_cast<const float*>(from);
    float* target = static_cast<float*>(to);
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        for (int64_t c = 0; c < columns; c += 4)
            transpose4(source + r * from_step + c, from_step, target + c * to_step + r, to_step, 4);
    for (; r < to_step; r += 4)
        for (int64_t c = 0; c < columns; c += 4)
            transpose4(source + r * from_step + c, from_step, target + c * to_step + r, to_step, rows - r);
}

}  // namespace memofast::MEMOFAST_VARIANT
