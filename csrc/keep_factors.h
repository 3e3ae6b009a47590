// What dropout multiplies hidden rows with, where nothing else is fused with it: see memofast/ops/philox.py, whose
// `hidden_keep_mask` this equals bit for bit.
#pragma once

#include "variant.h"

namespace memofast {

struct KeepFactorsArguments {
    const int64_t* rng;  // {seed, step}
    uint32_t purpose, site;
    const int64_t* sample_keys;  // [samples]
    int64_t samples, rows, width;
    uint32_t threshold;
    float scale;  // of what is kept
    float* factors;  // [samples, rows, width]
};

MEMOFAST_DECLARE(int keep_factors(const KeepFactorsArguments& arguments))

}  // namespace memofast
