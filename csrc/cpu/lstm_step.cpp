// Threads take samples; a vector holds neighbouring cells of one.
#include "../lstm_step.h"

#include <cstring>

#include "rows/lstm_step.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int64_t kCellsPerThread = 16384;

MEMOFAST_FUNCTION Floats read(const float* values, int count) {
    Floats found = {};
    if (count >= kLanes) memcpy(&found, values, sizeof found);
    else memcpy(&found, values, size_t(count) * sizeof(float));
    return found;
}

MEMOFAST_FUNCTION void write(float* values, int count, Floats given) {
    if (count >= kLanes) memcpy(values, &given, sizeof given);
    else memcpy(values, &given, size_t(count) * sizeof(float));
}

MEMOFAST_FUNCTION LstmGates read_gates(const float* gates, int64_t size, int count) {
    return {read(gates, count), read(gates + size, count), read(gates + 2 * size, count),
            read(gates + 3 * size, count)};
}

MEMOFAST_FUNCTION void write_gates(float* gates, int64_t size, int count, const LstmGates& given) {
    write(gates, count, given.entry), write(gates + size, count, given.forget);
    write(gates + 2 * size, count, given.proposed), write(gates + 3 * size, count, given.out);
}

}  // namespace

int lstm_step(const LstmStepArguments& a) {
#pragma omp parallel for schedule(static) if (a.samples * a.size >= kCellsPerThread)
    for (int64_t sample = 0; sample < a.samples; ++sample)
        for (int64_t cell = 0; cell < a.size; cell += kLanes) {
            const int64_t at = sample * a.size + cell;
            const int count = int(a.size - cell < kLanes ? a.size - cell : kLanes);
            float* own = a.gates + 4 * sample * a.size + cell;
            LstmGates gates = read_gates(own, a.size, count);
            gates = {logistic(gates.entry), logistic(gates.forget), hyperbolic(gates.proposed), logistic(gates.out)};
            write_gates(own, a.size, count, gates);
            const LstmState state = next_state(gates, read(a.before + at, count));
            write(a.cells + at, count, state.cell), write(a.squashed + at, count, state.squashed);
            write(a.hidden + at, count, state.hidden);
        }
    return kSuccess;
}

int lstm_step_backward(const LstmStepBackwardArguments& a) {
#pragma omp parallel for schedule(static) if (a.samples * a.size >= kCellsPerThread)
    for (int64_t sample = 0; sample < a.samples; ++sample)
        for (int64_t cell = 0; cell < a.size; cell += kLanes) {
            const int64_t at = sample * a.size + cell, gate = 4 * sample * a.size + cell;
            const int count = int(a.size - cell < kLanes ? a.size - cell : kLanes);
            const Floats of_hidden = read(a.of_hidden + at, count) + read(a.to_hidden + at, count);
            Floats of_cell = read(a.of_cells + at, count) + read(a.to_cells + at, count);
            const LstmGates gates = read_gates(a.gates + gate, a.size, count);
            const LstmGates found = gate_gradients(gates, read(a.before + at, count), read(a.squashed + at, count),
                                                   of_hidden, of_cell);
            write_gates(a.of_gates + gate, a.size, count, found);
            write(a.of_cells + at, count, of_cell);
        }
    return kSuccess;
}

}  // namespace memofast::MEMOFAST_VARIANT
