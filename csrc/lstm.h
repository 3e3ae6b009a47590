// An LSTM of one layer and direction over steps: see memofast/model/sequence/recurrences.py.
#pragma once

#include "variant.h"

namespace memofast {

// Row-major fp32. Gates [steps, samples, 4 size] in the order input, forget, cell, output.
struct LstmArguments {
    int64_t steps, samples, size;
    const float* weight;  // [4 size, size]
    float* gates;         // what goes into them, then what they are
    float *hidden, *cells;  // [steps + 1, samples, size], of which the first are given
    float* squashed;        // [steps, samples, size]: tanh(cells)
};

struct LstmBackwardArguments {
    int64_t steps, samples, size;
    const float *weight, *gates, *cells, *squashed;
    const float *to_hidden, *to_cells;  // [steps, samples, size]: gradients of the states
    float* of_gates;                    // of what goes into them
};

MEMOFAST_DECLARE(int lstm(const LstmArguments& arguments))
MEMOFAST_DECLARE(int lstm_backward(const LstmBackwardArguments& arguments))

}  // namespace memofast
