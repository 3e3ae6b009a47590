// How samples are spread over warps, and how their targets are listed in row order without a host sync.
#pragma once

#include "launch.cuh"
#include "masked_batch.h"
#include "rows/sample_lanes.h"

namespace memofast::MEMOFAST_VARIANT {

constexpr int kWarpsPerBlock = 4;

// One warp a sample: mask(lanes, key, sample, first row, rows) masks it and returns its targets; leave(row) writes a row that stays
// as it is. One more warp leaves the rows past the last sample.
template <class Mask, class Leave>
__global__ void mask_samples(MaskedBatch batch, TargetList list, Mask mask, Leave leave) {
    const WarpLanes lanes;
    const int64_t sample = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
    if (sample > batch.samples) return;
    const int32_t first = batch.offsets[sample];
    const int32_t end = sample < batch.samples ? batch.offsets[sample + 1] : int32_t(batch.rows);
    const bool masked = sample < batch.samples && end > first && (!batch.selected || batch.selected[sample]);
    int32_t targets = 0;
    if (masked)
        targets = mask(lanes, stream_key(batch.rng, batch.purpose, batch.site), sample, first, end - first);
    else
        for (int32_t row = first + lanes.lane(); row < end; row += WarpLanes::width) leave(row);
    if (sample < batch.samples && lanes.lane() == 0) list.sample_counts[sample] = targets;
}

// One warp a sample lists its targets behind those of earlier samples; take(row) says whether a row is one.
template <class Take>
__global__ void list_targets(MaskedBatch batch, TargetList list, Take take) {
    const WarpLanes lanes;
    const int64_t sample = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
    if (sample > batch.samples) return;
    int32_t before = 0, all = 0;
    for (int64_t other = lanes.lane(); other < batch.samples; other += WarpLanes::width) {
        const int32_t targets = list.sample_counts[other];
        all += targets;
        if (other < sample) before += targets;
    }
    before = lanes.sum(before);
    all = lanes.sum(all);
    const int64_t every = (batch.samples + 1) * WarpLanes::width;
    for (int64_t slot = all + sample * WarpLanes::width + lanes.lane(); slot < list.capacity; slot += every)
        list.indices[slot] = 0;
    if (sample == batch.samples) {
        if (lanes.lane() == 0) {
            *list.count = all;
            *list.overflow = all > list.capacity;
        }
        return;
    }
    const int32_t first = batch.offsets[sample], end = batch.offsets[sample + 1];
    for (int32_t base = first; base < end; base += WarpLanes::width) {
        const int32_t row = base + lanes.lane();
        const bool target = row < end && take(row);
        const uint32_t found = lanes.ballot(target);
        const int32_t slot = before + __popc(found & ((1u << lanes.lane()) - 1));
        if (target && slot < list.capacity) list.indices[slot] = row;
        before += __popc(found);
    }
}

template <class Mask, class Leave, class Take>
int mask_batch(const MaskedBatch& batch, const TargetList& list, Mask mask, Leave leave, Take take, void* stream) {
    const dim3 blocks(unsigned(batch.samples / kWarpsPerBlock + 1)), threads(32 * kWarpsPerBlock);
    const auto on = static_cast<cudaStream_t>(stream);
    if (const int error = launch_kernel(mask_samples<Mask, Leave>, blocks, threads, 0, on, batch, list, mask, leave)) return error;
    return launch_kernel(list_targets<Take>, blocks, threads, 0, on, batch, list, take);
}

}  // namespace memofast::MEMOFAST_VARIANT
