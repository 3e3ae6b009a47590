// What stands between the products of an LSTM's steps: see memofast/model/sequence/recurrences.py.
#pragma once

#include "variant.h"

namespace memofast {

// All [samples, size], gates [samples, 4 size] in the order input, forget, cell, output.
struct LstmStepArguments {
    int64_t samples, size;
    float* gates;  // what goes into them, then what they are
    const float* before;  // cells of the step before
    float *cells, *squashed, *hidden;  // tanh(cells)
};

struct LstmStepBackwardArguments {
    int64_t samples, size;
    const float *gates, *before, *squashed, *to_hidden, *to_cells;
    const float* of_hidden;  // the gradient by the next step, of the hidden state
    float* of_cells;         // of the cells; then that for the step before
    float* of_gates;         // of what goes into them
};

MEMOFAST_DECLARE(int lstm_step(const LstmStepArguments& arguments))
MEMOFAST_DECLARE(int lstm_step_backward(const LstmStepBackwardArguments& arguments))

}  // namespace memofast
