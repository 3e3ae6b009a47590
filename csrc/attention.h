// Attention inside each sequence: see memofast/ops/attention.py for what the tensors mean.
#pragma once

#include "variant.h"

namespace memofast {

struct AttentionArguments {
    const void* q;        // of row r and head h: width elements from q_step r + width h on
    const void* kv;       // keys likewise, by kv_step; values lie heads * width elements behind them
    int64_t q_step, kv_step;
    void* grad_q;         // as q and kv; backward only
    void* grad_kv;
    const void* grad;     // [queries, heads, width]; backward only
    void* out;            // [queries, heads, width]; forward only
    float* lse;           // [queries, heads]: log of the sum of exponentials; written forward, read backward
    const int32_t* offsets;        // [samples + 1], of keys
    const int32_t* lengths;        // [samples], of keys, or null: all rows between the offsets
    const int32_t* query_offsets;  // [samples + 1] or null: every row of the keys is a query
    const int64_t* rng;            // {seed, step} or null where threshold is 0
    const int64_t* sample_keys;    // [samples] or null where threshold is 0
    int64_t rows, queries, samples, heads, width;
    uint32_t site;
    uint32_t threshold;  // a 16-bit lane is kept where it is at least this; 0: no dropout
    float keep_scale;    // what kept probabilities are multiplied with
    float scale;         // of the scores
    Type type;           // of q, kv, grad and out
    bool causal;         // a query sees no key more than |queries - keys| rows ahead of it; on a CPU only
    // On a GPU only.
    const void* saved;   // [queries, heads, width]: what forward gave; backward only
    int64_t longest;     // no sequence of keys or queries is known to be longer; 0: nothing is known
};

MEMOFAST_DECLARE(int attention_forward(const AttentionArguments&))
MEMOFAST_DECLARE(int attention_backward(const AttentionArguments&))

namespace cuda {
int attention_forward(const AttentionArguments&, void* stream);
int attention_backward(const AttentionArguments&, void* stream);
}  // namespace cuda

}  // namespace memofast
