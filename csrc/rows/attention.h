// Which rows the keys and the queries of a sequence have.
#pragma once

#include "../attention.h"

namespace memofast::MEMOFAST_VARIANT {

struct SequenceRows {
    int first, length, unused;  // unused: rows behind it that belong to no sequence
};

// Past the last sample: the rows that come after all sequences.
MEMOFAST_FUNCTION SequenceRows keys_of(const AttentionArguments& a, int64_t sample) {
    const int first = a.offsets[sample], room = (sample < a.samples ? a.offsets[sample + 1] : int(a.rows)) - first;
    const int length = sample == a.samples ? 0 : a.lengths ? a.lengths[sample] : room;
    return {first, length, room - length};
}

// Of queries that are not the keys' rows; those without a key count as rows of no sequence.
MEMOFAST_FUNCTION SequenceRows queries_of(const AttentionArguments& a, int64_t sample, const SequenceRows& keys) {
    const int first = a.query_offsets[sample],
              room = (sample < a.samples ? a.query_offsets[sample + 1] : int(a.queries)) - first;
    const int length = keys.length ? room : 0;
    return {first, length, room - length};
}

}  // namespace memofast::MEMOFAST_VARIANT
