// The masked rows of one sample. The random words of its rows lie in its own part of `source` until they are used, so
// that a sample may have any number of rows and no workspace is needed.
#pragma once

#include "rows/sample_lanes.h"
#ifndef __CUDACC__
#include "rows/few_spans.h"
#endif
#include "../span_mask.h"

namespace memofast::MEMOFAST_VARIANT {

constexpr int32_t kMaskVector = -1;

// Until targets are listed, a target that reads row r holds -2 - r.
MEMOFAST_FUNCTION int32_t as_target(int32_t row) { return -2 - row; }
MEMOFAST_FUNCTION int32_t settled(int32_t source) { return source < kMaskVector ? -2 - source : source; }

// The smallest (word, index), as word << 32 | index, that is at least `bound`, of words stored for [0, count).
template <class Lanes>
MEMOFAST_FUNCTION uint64_t next_stored(const Lanes& lanes, const int32_t* words, int32_t count, uint64_t bound) {
    uint64_t best = ~uint64_t{0};
#ifndef __CUDACC__
#pragma omp simd reduction(min : best)
#endif
    for (int32_t i = lanes.lane(); i < count; i += Lanes::width) {
        const uint64_t ordered = uint64_t(uint32_t(words[i])) << 32 | uint32_t(i);
        const uint64_t candidate = ordered < bound ? ~uint64_t{0} : ordered;
        best = candidate < best ? candidate : best;
    }
    return lanes.smallest(best);
}

// The same of words drawn anew.
template <class Lanes>
MEMOFAST_FUNCTION uint64_t next_drawn(const Lanes& lanes, Key key, int64_t sample_key, uint32_t block, int32_t count,
                                      uint64_t bound) {
    uint64_t best = ~uint64_t{0};
    for (int32_t quad = lanes.lane(); 4 * quad < count; quad += Lanes::width) {
        const Words four = draw(key, sample_key, uint32_t(quad), block);
        for (int32_t word = 0; word < 4; ++word) {
            const uint64_t ordered = uint64_t(four.word[word]) << 32 | uint32_t(4 * quad + word);
            if (4 * quad + word < count && ordered >= bound && ordered < best) best = ordered;
        }
    }
    return lanes.smallest(best);
}

// Rows [start, start + length) of the sample; returns length.
template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_one_span(const Lanes& lanes, int32_t first, int32_t n, int32_t start, int32_t length,
                                        int32_t* source) {
    for (int32_t row = lanes.lane(); row < n; row += Lanes::width)
        source[row] = row >= start && row < start + length ? kMaskVector : first + row;
    return length;
}

template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_independent(const Lanes& lanes, const SpanPolicy& policy, Key key, int64_t sample_key,
                                           int32_t first, int32_t n, int32_t* source) {
    const uint64_t threshold = (uint64_t(policy.numerator) << 32) / uint64_t(policy.denominator);
    fill_words(lanes, key, sample_key, 0, n, source);
    int32_t targets = 0;
    for (int32_t row = lanes.lane(); row < n; row += Lanes::width) {
        const bool masked = uint32_t(source[row]) < threshold;
        source[row] = masked ? kMaskVector : first + row;
        targets += masked;
    }
    return lanes.sum(targets);
}

// `spans` distinct spans of `length` rows, starting at one of `candidates` rows; `reading`:
// each reads another span's rows.
template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_spans(const Lanes& lanes, Key key, int64_t sample_key, int32_t first, int32_t n,
                                     int32_t candidates, int32_t spans, int32_t length, bool reading, int32_t* source) {
#ifndef __CUDACC__
    if (kWideElements > 2 && n <= kFewRows && !reading) {  // vectors of two are no faster
        const uint64_t rows = candidates <= kFewRows / 2
            ? few_spans<kFewRows / 8>(key, sample_key, candidates, spans, length)
            : few_spans<kFewRows / 4>(key, sample_key, candidates, spans, length);
        return write_few(rows, kMaskVector, first, n, source);
    }
#endif
    fill_words(lanes, key, sample_key, 0, candidates, source);
    uint64_t last = next_stored(lanes, source, candidates, 0);
    for (int32_t i = 1; i < spans; ++i) last = next_stored(lanes, source, candidates, last + 1);
    uint64_t replacing = ~uint64_t{0};
    // of the latest span that starts at or before this lane's row
    int32_t start = -length, replacement = 0, targets = 0;
    for (int32_t base = 0; base < n; base += Lanes::width) {
        const int32_t row = base + lanes.lane();
        const bool starts = row < candidates && (uint64_t(uint32_t(source[row])) << 32 | uint32_t(row)) <= last;
        const uint32_t starting = lanes.ballot(starts);
        int32_t own = start, own_replacement = replacement;
        if (reading) {
            for (uint32_t left = starting; left; left &= left - 1) {
                start = base + lowest_bit(left);
                replacing = next_drawn(lanes, key, sample_key, 1, candidates, replacing + 1);
                replacement = int32_t(uint32_t(replacing));
                if (start <= row) own = start, own_replacement = replacement;
            }
        } else if (starting) {
            start = base + highest_bit(starting);
            const uint32_t before = starting & (~0u >> (31 - lanes.lane()));
            if (before) own = base + highest_bit(before);
        }
        if (row >= n) continue;
        const bool target = row - own < length;
        targets += target;
        const int32_t read = reading ? as_target(first + own_replacement + row - own) : kMaskVector;
        source[row] = target ? read : first + row;
    }
    return lanes.sum(targets);
}

// Writes `source` of the n > 0 rows of one sample, whose first packed row is `first`; returns its number of targets.
template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_sample(const Lanes& lanes, const SpanPolicy& policy, Key key, int64_t sample_key,
                                      int32_t first, int32_t n, int32_t* source) {
    if (policy.kind == SpanKind::independent) {
        const int32_t targets = mask_independent(lanes, policy, key, sample_key, first, n, source);
        if (targets) return targets;
    }
    const bool only_spans = policy.kind == SpanKind::span && !policy.dice;
    Words whole;
    if (!only_spans) whole = draw(key, sample_key, 0, 2);
    int64_t numerator = policy.numerator, denominator = policy.denominator;
    int32_t length = policy.length;
    if (policy.kind == SpanKind::single_span) {
        length = int32_t(n * numerator / denominator);
        const int32_t starts = n - length + (policy.original ? 0 : 1);
        if (length > 0 && starts > 0)
            return mask_one_span(lanes, first, n, int32_t(below(whole.word[0], uint32_t(starts))), length, source);
    }
    if (policy.kind == SpanKind::mixed) {
        numerator = 1 + below(whole.word[2], 9);
        denominator = 10;
        length = 1 + int32_t(below(whole.word[3], uint32_t(length)));
    }
    if (policy.kind == SpanKind::span || policy.kind == SpanKind::mixed) {
        const int64_t wanted = n * numerator / (denominator * length);
        const int32_t candidates = n - length + (policy.original ? -1 : 1);
        const int32_t spans = wanted < candidates ? int32_t(wanted) : candidates;
        const uint32_t eight_tenths = uint32_t((uint64_t{8} << 32) / 10),
                       nine_tenths = uint32_t((uint64_t{9} << 32) / 10);
        const bool dropped = policy.dice && whole.word[1] >= nine_tenths;
        const bool reading = policy.dice && whole.word[1] >= eight_tenths;
        if (spans > 0 && !dropped)
            return mask_spans(lanes, key, sample_key, first, n, candidates, spans, length, reading, source);
    }
    if (only_spans) whole = draw(key, sample_key, 0, 2);
    return mask_one_span(lanes, first, n, int32_t(below(whole.word[0], uint32_t(n))), 1, source);
}

}  // namespace memofast::MEMOFAST_VARIANT
