// The arithmetic of an LSTM's cells, in vectors.
#pragma once

#include "rows/vectors.h"

namespace memofast::MEMOFAST_VARIANT {

MEMOFAST_FUNCTION Floats logistic(Floats x) {
    const Floats bounded = x < -87.0f ? Floats{} - 87.0f : x;  // NaN stays NaN
    return 1.0f / (1.0f + exponential(-bounded));
}

MEMOFAST_FUNCTION Floats hyperbolic(Floats x) { return 2.0f * logistic(2.0f * x) - 1.0f; }

struct LstmGates {
    Floats entry, forget, proposed, out;
};

struct LstmState {
    Floats cell, squashed, hidden;
};

MEMOFAST_FUNCTION LstmState next_state(const LstmGates& gates, Floats before) {
    const Floats cell = gates.forget * before + gates.entry * gates.proposed, squashed = hyperbolic(cell);
    return {cell, squashed, gates.out * squashed};
}

// The gradient of what goes into the gates; of_cell becomes that of the cell before.
MEMOFAST_FUNCTION LstmGates gate_gradients(const LstmGates& gates, Floats before, Floats squashed, Floats of_hidden,
                                           Floats& of_cell) {
    of_cell += of_hidden * gates.out * (1.0f - squashed * squashed);
    const LstmGates found = {of_cell * gates.proposed * gates.entry * (1.0f - gates.entry),
                             of_cell * before * gates.forget * (1.0f - gates.forget),
                             of_cell * gates.entry * (1.0f - gates.proposed * gates.proposed),
                             of_hidden * squashed * gates.out * (1.0f - gates.out)};
    of_cell *= gates.forget;
    return found;
}

}  // namespace memofast::MEMOFAST_VARIANT
