// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011) and memofast's layout of its counters.
#pragma once

#include "variant.h"

namespace memofast::MEMOFAST_VARIANT {

struct Words {
    uint32_t word[4];
};

struct Key {
    uint32_t low, high;
};

MEMOFAST_FUNCTION Words philox(Key key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53u} * c0;
        const uint64_t b = uint64_t{0xCD9E8D57u} * c2;
        c0 = uint32_t(b >> 32) ^ c1 ^ key.low;
        c1 = uint32_t(b);
        c2 = uint32_t(a >> 32) ^ c3 ^ key.high;
        c3 = uint32_t(a);
        key.low += 0x9E3779B9u;
        key.high += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The key of one purpose and site at one update: rng points at {seed, step}.
MEMOFAST_FUNCTION Key stream_key(const int64_t* rng, uint32_t purpose, uint32_t site) {
    const uint64_t seed = uint64_t(rng[0]), step = uint64_t(rng[1]);
    const Words w = philox({uint32_t(seed), uint32_t(seed >> 32)}, uint32_t(step), uint32_t(step >> 32), purpose, site);
    return {w.word[0], w.word[1]};
}

// Four words for one position and block of one sample.
MEMOFAST_FUNCTION Words draw(Key key, int64_t sample_key, uint32_t position, uint32_t block) {
    return philox(key, uint32_t(uint64_t(sample_key)), uint32_t(uint64_t(sample_key) >> 32), position, block);
}

// Lane 0..7 of a draw: 16 bits, low half of a word first.
MEMOFAST_FUNCTION uint32_t lane16(const Words& words, int lane) {
    return (words.word[lane >> 1] >> (16 * (lane & 1))) & 0xFFFFu;
}

// A uniform integer in [0, n).
MEMOFAST_FUNCTION uint32_t below(uint32_t word, uint32_t n) { return uint32_t((uint64_t(word) * n) >> 32); }

}  // namespace memofast::MEMOFAST_VARIANT
