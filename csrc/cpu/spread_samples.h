// How samples are spread over threads.
#pragma once

#include <omp.h>

#include "masked_batch.h"

namespace memofast::MEMOFAST_VARIANT {

inline bool offsets_are_sound(const MaskedBatch& batch) {
    bool sound = batch.offsets[0] == 0 && batch.offsets[batch.samples] <= batch.rows;
    for (int64_t sample = 0; sample < batch.samples; ++sample)
        sound &= batch.offsets[sample] <= batch.offsets[sample + 1];
    return sound;
}

// mask(sample, first row, rows) masks one sample and returns its targets; leave(first row, rows) writes rows that stay
// as they are. Returns all targets, or a negative Status.
template <class Mask, class Leave>
int64_t mask_batch(const MaskedBatch& batch, const Mask& mask, const Leave& leave) {
    constexpr int64_t kRowsPerThread = 1 << 17;  // waiting for a busy core costs more than it gains on fewer
    if (!offsets_are_sound(batch)) return kBadOffsets;
    const auto mask_one = [&](int64_t sample) -> int64_t {
        const int32_t first = batch.offsets[sample], rows = batch.offsets[sample + 1] - first;
        if (rows > 0 && (!batch.selected || batch.selected[sample])) return mask(sample, first, rows);
        leave(first, rows);
        return 0;
    };
    int64_t targets = 0;
    if (batch.rows < 2 * kRowsPerThread) {
        for (int64_t sample = 0; sample < batch.samples; ++sample) targets += mask_one(sample);
    } else {
        const int64_t most = omp_get_max_threads(), wanted = batch.rows / kRowsPerThread;
#pragma omp parallel for num_threads(int(wanted < most ? wanted : most)) reduction(+ : targets)
        for (int64_t sample = 0; sample < batch.samples; ++sample) targets += mask_one(sample);
    }
    const int32_t end = batch.offsets[batch.samples];
    leave(end, int32_t(batch.rows) - end);
    return targets;
}

}  // namespace memofast::MEMOFAST_VARIANT
