// What both mask operators are told about a batch, and where their targets are listed.
#pragma once

#include "variant.h"

namespace memofast {

struct MaskedBatch {
    const int32_t* offsets;      // [samples + 1]
    const int64_t* sample_keys;  // [samples]
    const int64_t* rng;          // {seed, step}
    const bool* selected;        // [samples] or null: all
    int64_t samples, rows;
    uint32_t purpose, site;
};

struct TargetList {
    int32_t* indices;   // [capacity] target rows, ascending, then zeros
    int32_t* count;     // [1] all targets
    int32_t* overflow;  // [1] whether they are more than capacity
    int64_t capacity;
    int32_t* sample_counts;  // [samples] workspace of the GPU, null on the CPU
};

// What a mask operator wrote for each row. Targets hold a negative number in `span_mask`'s source,
// any other in `token_mask`'s labels.
struct MaskedValues {
    int32_t* values;
    int64_t rows;
    bool negative;
};

// Lists the targets among values (and settles those of `span_mask`). On the CPU this is a call of its own, for between
// it and the masking the number of targets is known, and the list can be allocated with exactly that length.
MEMOFAST_DECLARE(int list_targets(const MaskedValues& masked, const TargetList& list))

}  // namespace memofast
