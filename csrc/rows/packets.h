// A packet: the neighbouring elements of a row that one lane reads, computes and writes in one go,
// without memory between. On the CPU they are two vectors, on a GPU eight floats. Arithmetic on
// `Unit`s is written once, as templates over it.
#pragma once

#include "rows/lanes.h"

#ifndef __CUDACC__
#include "rows/vectors.h"
#endif

namespace memofast::MEMOFAST_VARIANT {

#ifdef __CUDACC__

using Unit = float;
constexpr int kUnits = 8, kPacket = 8;

template <class T>
__device__ __forceinline__ void load_packet(const T* source, int count, Unit* units) {
    load<kPacket>(source, count, units);
}

template <class T>
__device__ __forceinline__ void store_packet(T* target, int count, const Unit* units) {
    store<kPacket>(target, count, units);
}

#else

using Unit = Floats;
constexpr int kUnits = 2, kPacket = kUnits * kLanes;

#if defined(__AVX512F__)
// BFloat16 of a CPU with AVX512-BF16, which is asked for at run time. Its instruction rounds the same,
// but to zero below 1.2e-38.
struct NativeBFloat16 {
    uint16_t bits;
};
typedef uint16_t Sixteens __attribute__((vector_size(64)));
#endif

// Units of 16-bit elements are dealt out in turn, for an even and an odd element share 32 bits in memory. `deal` brings
// units that lie in the order of elements into that of T, `undeal` brings them back.
template <class T>
MEMOFAST_FUNCTION void deal(Unit* units) {
    if (sizeof(T) != 2) return;
    Ints even, odd;
    for (int i = 0; i < kLanes; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
    const Unit first = units[0];
    units[0] = __builtin_shuffle(first, units[1], even);
    units[1] = __builtin_shuffle(first, units[1], odd);
}

template <class T>
MEMOFAST_FUNCTION void undeal(Unit* units) {
    if (sizeof(T) != 2) return;
    Ints front, back;
    for (int i = 0; i < kLanes; ++i) front[i] = i % 2 * kLanes + i / 2, back[i] = front[i] + kLanes / 2;
    const Unit even = units[0];
    units[0] = __builtin_shuffle(even, units[1], front);
    units[1] = __builtin_shuffle(even, units[1], back);
}

// Vector by vector: a longer memcpy goes through memory in pieces, and reading whole what was written in pieces waits.
MEMOFAST_FUNCTION void load_whole(const float* source, Unit* units) {
    MEMOFAST_UNROLL for (int i = 0; i < kUnits; ++i) units[i] = *(const AnyFloats*)(source + i * kLanes);
}

MEMOFAST_FUNCTION void load_pairs(const uint16_t* source, Unit* units) {
    Units pairs;
    memcpy(&pairs, source, sizeof pairs);
    units[0] = (Floats)(pairs << 16);
    units[1] = (Floats)(pairs & 0xFFFF0000u);
}

MEMOFAST_FUNCTION void load_whole(const BFloat16* source, Unit* units) { load_pairs(&source->bits, units); }

MEMOFAST_FUNCTION void store_whole(float* target, const Unit* units) {
    MEMOFAST_UNROLL for (int i = 0; i < kUnits; ++i) *(AnyFloats*)(target + i * kLanes) = units[i];
}

MEMOFAST_FUNCTION void store_whole(BFloat16* target, const Unit* units) {
    const Units pairs = rounded_bf16(units[0]) >> 16 | rounded_bf16(units[1]);
    memcpy(target, &pairs, sizeof pairs);
}

#if defined(__AVX512F__)
MEMOFAST_FUNCTION void load_whole(const NativeBFloat16* source, Unit* units) { load_pairs(&source->bits, units); }

MEMOFAST_FUNCTION void store_whole(NativeBFloat16* target, const Unit* units) {
    Sixteens rounded, turns;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(rounded) : "v"(units[0]), "v"(units[1]));
    for (int i = 0; i < kPacket; ++i) turns[i] = uint16_t(i % 2 * kLanes + i / 2);
    rounded = __builtin_shuffle(rounded, turns);
    memcpy(target, &rounded, sizeof rounded);
}
#endif

// `count` elements, zeros from there to the packet's end.
template <class T>
MEMOFAST_FUNCTION void load_packet(const T* source, int count, Unit* units) {
    if (count >= kPacket) return load_whole(source, units);
    T whole[kPacket] = {};
    memcpy(whole, source, count * sizeof(T));
    load_whole(whole, units);
}

// The first `count` elements, rounded to T.
template <class T>
MEMOFAST_FUNCTION void store_packet(T* target, int count, const Unit* units) {
    if (count >= kPacket) return store_whole(target, units);
    T whole[kPacket];
    store_whole(whole, units);
    memcpy(target, whole, count * sizeof(T));
}

#endif

}  // namespace memofast::MEMOFAST_VARIANT
