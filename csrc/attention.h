// Attention inside each sequence: see memofast/ops/attention.py for what the tensors mean.
#pragma once

#include "variant.h"

namespace memofast {

struct AttentionArguments {
    const void* qkv;             // [rows, 3, heads, width]
    const void* grad;            // [rows, heads, width]; backward only
    void* out;                   // forward: [rows, heads, width]; backward: gradient of qkv, [rows, 3, heads, width]
    float* lse;                  // [rows, heads]: log of the sum of exponentials; written forward, read backward
    const int32_t* offsets;      // [samples + 1]
    const int32_t* lengths;      // [samples] or null: all rows between the offsets
    const int64_t* rng;          // {seed, step} or null where threshold is 0
    const int64_t* sample_keys;  // [samples] or null where threshold is 0
    int64_t rows, samples, heads, width;
    uint32_t site;
    uint32_t threshold;  // a 16-bit lane is kept where it is at least this; 0: no dropout
    float keep_scale;    // what kept probabilities are multiplied with
    float scale;         // of the scores
    Type type;           // of qkv, grad and out
    // On a GPU only.
    const void* saved;   // [rows, heads, width]: what forward gave; backward only
    int64_t longest;     // no sequence is known to be longer; 0: nothing is known
};

MEMOFAST_DECLARE(int attention_forward(const AttentionArguments&))
MEMOFAST_DECLARE(int attention_backward(const AttentionArguments&))

namespace cuda {
int attention_forward(const AttentionArguments&, void* stream);
int attention_backward(const AttentionArguments&, void* stream);
}  // namespace cuda

}  // namespace memofast
