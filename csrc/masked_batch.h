// What both mask operators are told about a batch, and where they list its targets.
#pragma once

#include "variant.h"

namespace memofast {

struct MaskedBatch {
    const int32_t* offsets;      // [samples + 1]
    const int64_t* sample_keys;  // [samples]
    const int64_t* rng;          // {seed, step}
    const bool* selected;        // [samples] or null: all
    int32_t* indices;            // [capacity] target rows, ascending, then zeros
    int32_t* count;              // [1] all targets
    int32_t* overflow;           // [1] whether they are more than capacity
    int32_t* sample_counts;      // [samples] workspace of the GPU
    int64_t samples, rows, capacity;
    uint32_t purpose, site;
};

}  // namespace memofast
