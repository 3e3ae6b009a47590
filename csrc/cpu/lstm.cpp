// Threads take samples and walk all steps of theirs, so that they never wait for one another; a vector holds
// neighbouring cells of one sample. Gates are brought apart to whole vectors, so that a product gives all four.
#include "lstm.h"

#include <omp.h>
#include <string.h>

#include "cpu/scratch.h"
#include "rows/lstm_cell.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kGates = 4;

MEMOFAST_FUNCTION Floats read(const float* values, int64_t left) {
    if (left >= kLanes) return *(const AnyFloats*)values;
    Floats found = {};
    for (int i = 0; i < int(left); ++i) found[i] = values[i];
    return found;
}

MEMOFAST_FUNCTION void write(float* values, int64_t left, Floats given) {
    if (left >= kLanes) *(AnyFloats*)values = given;
    else
        for (int i = 0; i < int(left); ++i) values[i] = given[i];
}

MEMOFAST_FUNCTION LstmGates read_gates(const float* gates, int64_t apart, int64_t left) {
    return {read(gates, left), read(gates + apart, left), read(gates + 2 * apart, left),
            read(gates + 3 * apart, left)};
}

MEMOFAST_FUNCTION void write_gates(float* gates, int64_t apart, int64_t left, const LstmGates& given) {
    write(gates, left, given.entry), write(gates + apart, left, given.forget);
    write(gates + 2 * apart, left, given.proposed), write(gates + 3 * apart, left, given.out);
}

// work(first sample, samples) of every thread's share; a share depends on no other.
template <class Work>
void share_samples(int64_t samples, int64_t work_of_one, const Work& work) {
    constexpr int64_t kWorkPerThread = 1 << 20;  // cells
    const int64_t wanted = samples * work_of_one / kWorkPerThread, most = omp_get_max_threads();
    const int64_t threads = wanted < 1 ? 1 : wanted < most ? wanted : most;
    const int64_t share = (samples + threads - 1) / threads;
#pragma omp parallel for schedule(static) num_threads(int(threads)) if (threads > 1)
    for (int64_t first = 0; first < samples; first += share)
        work(first, samples - first < share ? samples - first : share);
}

}  // namespace

int lstm(const LstmArguments& a) {
    const int64_t apart = round_up(a.size, kLanes), columns = kGates * apart;
    Scratch panel(a.size * columns), sums(a.samples * columns);  // weight^T, and its product with the states
    if (!panel.data || !sums.data) return kOutOfMemory;
    for (int64_t from = 0; from < a.size; ++from)
        for (int64_t gate = 0; gate < kGates; ++gate)
            for (int64_t cell = 0; cell < apart; ++cell)
                panel.data[from * columns + gate * apart + cell] =
                    cell < a.size ? a.weight[(gate * a.size + cell) * a.size + from] : 0.0f;
    share_samples(a.samples, a.steps * a.size, [&](int64_t first, int64_t count) {
        for (int64_t step = 0; step < a.steps; ++step) {
            const int64_t from = (step * a.samples + first) * a.size, to = from + a.samples * a.size;
            float* sum = sums.data + first * columns;
            product<FloatArithmetic>({a.hidden + from, a.size, 1}, panel.data, columns, sum, columns, count, columns,
                                     a.size, false);
            for (int64_t sample = 0; sample < count; ++sample)
                for (int64_t cell = 0; cell < a.size; cell += kLanes) {
                    const int64_t left = a.size - cell, at = from + sample * a.size + cell;
                    float* own = a.gates + kGates * (from + sample * a.size) + cell;
                    const LstmGates given = read_gates(own, a.size, left);
                    const LstmGates by_states = read_gates(sum + sample * columns + cell, apart, kLanes);
                    const LstmGates gates = {logistic(given.entry + by_states.entry),
                                             logistic(given.forget + by_states.forget),
                                             hyperbolic(given.proposed + by_states.proposed),
                                             logistic(given.out + by_states.out)};
                    write_gates(own, a.size, left, gates);
                    const LstmState state = next_state(gates, read(a.cells + at, left));
                    const int64_t next = to + sample * a.size + cell;
                    write(a.cells + next, left, state.cell), write(a.hidden + next, left, state.hidden);
                    write(a.squashed + at, left, state.squashed);
                }
        }
    });
    return kSuccess;
}

int lstm_backward(const LstmBackwardArguments& a) {
    const int64_t columns = round_up(a.size, kLanes), width = kGates * a.size;
    Scratch panel(width * columns), carried(2 * a.samples * columns);  // weight, and gradients by the step after
    if (!panel.data || !carried.data) return kOutOfMemory;
    for (int64_t gate = 0; gate < width; ++gate)
        for (int64_t cell = 0; cell < columns; ++cell)
            panel.data[gate * columns + cell] = cell < a.size ? a.weight[gate * a.size + cell] : 0.0f;
    memset(carried.data, 0, size_t(2 * a.samples * columns) * sizeof(float));
    share_samples(a.samples, a.steps * a.size, [&](int64_t first, int64_t count) {
        float *of_hidden = carried.data + first * columns, *of_cells = of_hidden + a.samples * columns;
        for (int64_t step = a.steps; step-- > 0;) {
            const int64_t from = (step * a.samples + first) * a.size;
            for (int64_t sample = 0; sample < count; ++sample)
                for (int64_t cell = 0; cell < a.size; cell += kLanes) {
                    const int64_t left = a.size - cell, at = from + sample * a.size + cell;
                    const int64_t gate = kGates * (from + sample * a.size) + cell, kept = sample * columns + cell;
                    Floats of_cell = floats(of_cells + kept) + read(a.to_cells + at, left);
                    const LstmGates found =
                        gate_gradients(read_gates(a.gates + gate, a.size, left), read(a.cells + at, left),
                                       read(a.squashed + at, left),
                                       floats(of_hidden + kept) + read(a.to_hidden + at, left), of_cell);
                    write_gates(a.of_gates + gate, a.size, left, found);
                    floats(of_cells + kept) = of_cell;
                }
            product<FloatArithmetic>({a.of_gates + kGates * from, width, 1}, panel.data, columns, of_hidden, columns,
                                     count, columns, width, false);
        }
    });
    return kSuccess;
}

}  // namespace memofast::MEMOFAST_VARIANT
