// How samples are spread over warps, and how their targets are listed in row order without a host sync.
#pragma once

#include "launch.cuh"
#include "masked_batch.h"
#include "rows/sample_lanes.h"

namespace memofast::cuda {

constexpr int kWarpsPerBlock = 4;

__device__ __forceinline__ int64_t this_sample() { return int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32; }

// One warp a sample. One more warp leaves the rows past the last sample as they are.
// Of a Mask, mask_rows(lanes, key, sample key, first row, rows) masks one sample and returns its targets;
// leave_row(row) writes a row that stays as it is.
template <class Mask>
__global__ void mask_samples(const __grid_constant__ MaskedBatch batch, const __grid_constant__ Mask mask,
                             int32_t* sample_counts) {
    const WarpLanes lanes;
    const int64_t sample = this_sample();
    if (sample > batch.samples) return;
    const int32_t first = batch.offsets[sample];
    const int32_t end = sample < batch.samples ? batch.offsets[sample + 1] : int32_t(batch.rows);
    const bool masked = sample < batch.samples && end > first && (!batch.selected || batch.selected[sample]);
    int32_t targets = 0;
    if (masked) {
        const Key key = stream_key(batch.rng, batch.purpose, batch.site);
        targets = mask.mask_rows(lanes, key, batch.sample_keys[sample], first, end - first);
    } else {
        for (int32_t row = first + lanes.lane(); row < end; row += WarpLanes::width) mask.leave_row(row);
    }
    if (sample < batch.samples && lanes.lane() == 0) sample_counts[sample] = targets;
}

// One warp a sample lists its targets behind those of earlier samples. take_row(row) of a Mask says whether a row is a
// target.
template <class Mask>
__global__ void list_targets(const __grid_constant__ MaskedBatch batch, const __grid_constant__ Mask mask,
                             const __grid_constant__ TargetList list) {
    const WarpLanes lanes;
    const int64_t sample = this_sample();
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
        const bool target = row < end && mask.take_row(row);
        const uint32_t found = lanes.ballot(target);
        const int32_t slot = before + __popc(found & ((1u << lanes.lane()) - 1));
        if (target && slot < list.capacity) list.indices[slot] = row;
        before += __popc(found);
    }
}

template <class Mask>
int mask_batch(const MaskedBatch& batch, const Mask& mask, const TargetList& list, void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    const dim3 blocks(unsigned(batch.samples / kWarpsPerBlock + 1)), threads(32 * kWarpsPerBlock);
    const int error = launch_kernel(mask_samples<Mask>, blocks, threads, 0, on, batch, mask, list.sample_counts);
    if (error) return error;
    return launch_kernel(list_targets<Mask>, blocks, threads, 0, on, batch, mask, list);
}

}  // namespace memofast::cuda
