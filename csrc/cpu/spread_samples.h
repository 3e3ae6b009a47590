// How samples are spread over threads, and how their targets are listed in row order.
#pragma once

#include <omp.h>

#include "masked_batch.h"

namespace memofast::MEMOFAST_VARIANT {

inline bool offsets_are_sound(const MaskedBatch& batch) {
    bool sound = batch.offsets[0] == 0 && batch.offsets[batch.samples] <= batch.rows;
    for (int64_t sample = 0; sample < batch.samples; ++sample) sound &= batch.offsets[sample] <= batch.offsets[sample + 1];
    return sound;
}

// mask(sample, first row, rows) masks one sample and returns its targets; leave(first row, rows) writes rows that stay as they are;
// is_target(row) answers once its sample is masked; settle(first row, end row) finishes rows after that. Each thread has a run of samples.
template <class Mask, class Leave, class IsTarget, class Settle>
int mask_batch(const MaskedBatch& batch, const Mask& mask, const Leave& leave, const IsTarget& is_target,
               const Settle& settle) {
    constexpr int kMostThreads = 64;
    constexpr int64_t kRowsPerThread = 1 << 17;  // waiting for a busy core costs more than it gains on fewer
    if (!offsets_are_sound(batch)) return kBadOffsets;
    int64_t threads = batch.rows / kRowsPerThread + 1;
    if (threads > omp_get_max_threads()) threads = omp_get_max_threads();
    if (threads > kMostThreads) threads = kMostThreads;
    int64_t targets[kMostThreads] = {};
    const auto work = [&](int thread, int team, auto&& wait) {
        const int64_t begin = batch.samples * thread / team, end = batch.samples * (thread + 1) / team;
        int64_t own = 0;
        for (int64_t sample = begin; sample < end; ++sample) {
            const int32_t first = batch.offsets[sample], rows = batch.offsets[sample + 1] - first;
            if (rows > 0 && (!batch.selected || batch.selected[sample]))
                own += mask(sample, first, rows);
            else
                leave(first, rows);
        }
        targets[thread] = own;
        wait();
        int64_t slot = 0;
        for (int earlier = 0; earlier < thread; ++earlier) slot += targets[earlier];
        const int64_t last = slot + own < batch.capacity ? slot + own : batch.capacity;
        const int32_t end_row = batch.offsets[end];
        int32_t* const indices = batch.indices;
        for (int32_t row = batch.offsets[begin]; slot < last && row < end_row; ++row) {
            indices[slot] = row;  // stays where it is a target, or else the next row takes its place
            slot += is_target(row);
        }
        settle(batch.offsets[begin], end_row);
    };
    if (threads == 1) {
        work(0, 1, [] {});
    } else {
#pragma omp parallel num_threads(int(threads))
        work(omp_get_thread_num(), omp_get_num_threads(), [] {
#pragma omp barrier
        });
    }
    int64_t count = 0;
    for (int thread = 0; thread < kMostThreads; ++thread) count += targets[thread];
    for (int64_t slot = count; slot < batch.capacity; ++slot) batch.indices[slot] = 0;
    const int32_t end = batch.offsets[batch.samples];
    leave(end, int32_t(batch.rows) - end);
    *batch.count = int32_t(count);
    *batch.overflow = count > batch.capacity;
    return kSuccess;
}

}  // namespace memofast::MEMOFAST_VARIANT
