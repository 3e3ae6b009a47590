// The functions of csrc/cuda/ptx.cuh on the host: layouts of matrix fragments as "PTX ISA" documents them. How a matrix
// instruction rounds PTX leaves open; here it does as an A100 was found to, which loses more than an H100.
#pragma once

#include <algorithm>
#include <cmath>

#include "rows/lanes.h"

namespace memofast::cuda {

inline int this_lane() { return int(cuda_on_host::current->number % 32); }

template <class T>
uint16_t bits16(float value) {
    T rounded;
    from_float(value, rounded);
    uint16_t bits;
    memcpy(&bits, &rounded, 2);
    return bits;
}

template <class T>
float half_of(uint32_t word, int half) {
    const uint16_t bits = uint16_t(word >> (16 * half));
    T value;
    memcpy(&value, &bits, 2);
    return to_float(value);
}

template <class T>
uint32_t pack(float low, float high) {
    return bits16<T>(low) | uint32_t(bits16<T>(high)) << 16;
}

inline float power_of_two(float x) { return exp2f(x); }

inline uint64_t bits64(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

inline double double64(uint64_t bits) {
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

// c plus exact products as tensor cores add them (Fasi, Higham, Mikaitis, Pranesh 2021; A100: one bit more than fp32
// has): all are cut off at the last bit of the largest, and the sum is rounded towards zero.
template <int count>
float add_cut_off(float c, const double (&products)[count]) {
    const auto exponent = [](double value) { return int(bits64(value) >> 52 & 0x7FF); };  // biased by 1023
    double plain = c;
    int highest = exponent(c);
    for (double product : products) plain += product, highest = std::max(highest, exponent(product));
    if (highest == 0x7FF || highest == 0) return float(plain);
    const double unit = double64(uint64_t(highest - 24) << 52),
                 per_unit = double64(uint64_t(2 * 1023 + 24 - highest) << 52);
    int64_t units = int64_t(c * per_unit);
    for (double product : products) units += int64_t(product * per_unit);
    return float(double64(bits64(double(units) * unit) >> 29 << 29));  // as many bits as fp32 has
}

// A lane's elements of a and b, as numbers.
template <int a_count, int b_count>
struct Operands {
    float a[a_count], b[b_count];
};

template <class T>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Operands<8, 4> mine;
    for (int i = 0; i < 8; ++i) mine.a[i] = half_of<T>(a[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) mine.b[i] = half_of<T>(b[i / 2], i % 2);
    const auto* lanes = cuda_on_host::exchange("mma.m16n8k16", mine);
    const auto of = [&](int lane) { return reinterpret_cast<const Operands<8, 4>*>(lanes[lane]); };
    const int row = this_lane() / 4, column = this_lane() % 4 * 2;
    for (int i = 0; i < 4; ++i) {
        for (int first = 0; first < 16; first += 8) {
            double products[8];
            for (int k = first; k < first + 8; ++k) {
                // register 0: rows 0..7, k 0..7; 1: rows 8..15; 2 and 3: the same of k 8..15
                const float left = of(row * 4 + k % 8 / 2)->a[4 * (k / 8) + 2 * (i / 2) + k % 2];
                const float right = of((column + i % 2) * 4 + k % 8 / 2)->b[2 * (k / 8) + k % 2];
                products[k - first] = double(left) * right;
            }
            c[i] = add_cut_off(c[i], products);
        }
    }
}

inline void multiply_add_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Operands<4, 2> mine;
    for (int i = 0; i < 4; ++i) mine.a[i] = bits_float(a[i] & 0xFFFFE000u);
    for (int i = 0; i < 2; ++i) mine.b[i] = bits_float(b[i] & 0xFFFFE000u);
    const auto* lanes = cuda_on_host::exchange("mma.m16n8k8", mine);
    const auto of = [&](int lane) { return reinterpret_cast<const Operands<4, 2>*>(lanes[lane]); };
    const int row = this_lane() / 4, column = this_lane() % 4 * 2;
    for (int i = 0; i < 4; ++i) {
        for (int half = 0; half < 2; ++half) {
            double products[4];
            for (int k = 0; k < 4; ++k)
                products[k] = double(of(row * 4 + k)->a[2 * half + i / 2]) * of((column + i % 2) * 4 + k)->b[half];
            c[i] = add_cut_off(c[i], products);
        }
    }
}

inline const uint16_t* matrix_row(const unsigned char (*lanes)[cuda_on_host::kSlotBytes], int lane) {
    const auto* row = cuda_on_host::taken<const uint16_t*>(lanes, lane);
    if (reinterpret_cast<uintptr_t>(row) % 16) cuda_on_host::fault = "a row of ldmatrix is not aligned to 16 bytes";
    return row;
}

inline void load_matrices(uint32_t (&m)[4], const void* row) {
    const auto* lanes = cuda_on_host::exchange("ldmatrix", row);
    for (int i = 0; i < 4; ++i) memcpy(&m[i], matrix_row(lanes, 8 * i + this_lane() / 4) + this_lane() % 4 * 2, 4);
}

inline void load_matrices_transposed(uint32_t (&m)[4], const void* row) {
    const auto* lanes = cuda_on_host::exchange("ldmatrix.trans", row);
    for (int i = 0; i < 4; ++i) {
        const int first = 8 * i + this_lane() % 4 * 2, column = this_lane() / 4;
        m[i] = matrix_row(lanes, first)[column] | uint32_t(matrix_row(lanes, first + 1)[column]) << 16;
    }
}

inline int unkept(int number) { return number; }
inline int64_t unkept(int64_t number) { return number; }

inline void start_copy(void* target, const void* source, bool real) {
    if (reinterpret_cast<uintptr_t>(target) % 16 || reinterpret_cast<uintptr_t>(source) % 16)
        cuda_on_host::fault = "a copy of 16 bytes is not aligned";
    cuda_on_host::current->copies.push_back({target, real ? source : nullptr});
}

inline void wait_for_copies() {
    for (const auto& copy : cuda_on_host::current->copies)
        copy.source ? memcpy(copy.target, copy.source, 16) : memset(copy.target, 0, 16);
    cuda_on_host::current->copies.clear();
}

}  // namespace memofast::cuda
