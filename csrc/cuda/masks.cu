// How samples are spread over warps, and how their targets are listed in row order without a host sync.
#include "launch.cuh"
#include "masks.h"
#include "rows/span_mask.h"
#include "rows/token_mask.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kWarpsPerBlock = 4, kMostMasks = 8;  // of one launch

struct Masks {
    Mask mask[kMostMasks];  // one for each row of blocks
};

__device__ __forceinline__ const MaskedBatch& batch_of(const Mask& mask) { return mask.of_words ? mask.words.batch : mask.spans.batch; }

__device__ __forceinline__ int64_t this_sample() { return int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32; }

// Masks one sample and returns its targets.
__device__ int32_t mask_rows(const WarpLanes& lanes, const Mask& mask, Key key, int64_t sample_key, int32_t first, int32_t rows) {
    if (!mask.of_words) return mask_sample(lanes, mask.spans.policy, key, sample_key, first, rows, mask.spans.source + first);
    const TokenMaskArguments& a = mask.words;
    const Sentence sentence{a.token_ids + first, a.word_ids + first, a.emotion ? a.emotion + first : nullptr,
                            a.seen + first,      a.labels + first,   rows};
    return mask_sentence(lanes, a.policy, key, sample_key, sentence);
}

__device__ void leave_row(const Mask& mask, int32_t row) {
    if (mask.of_words) {
        mask.words.seen[row] = mask.words.token_ids[row];
        mask.words.labels[row] = -1;
    } else {
        mask.spans.source[row] = row;
    }
}

// Whether a row is a target; of feature rows it settles what they read.
__device__ bool take_row(const Mask& mask, int32_t row) {
    if (mask.of_words) return mask.words.labels[row] >= 0;
    const int32_t read = mask.spans.source[row];
    mask.spans.source[row] = settled(read);
    return read < 0;
}

// One warp a sample. One more warp leaves the rows past the last sample as they are.
__global__ void mask_samples(const __grid_constant__ Masks all) {
    const WarpLanes lanes;
    const Mask& mask = all.mask[blockIdx.y];
    const MaskedBatch& batch = batch_of(mask);
    const int64_t sample = this_sample();
    if (sample > batch.samples) return;
    const int32_t first = batch.offsets[sample];
    const int32_t end = sample < batch.samples ? batch.offsets[sample + 1] : int32_t(batch.rows);
    const bool masked = sample < batch.samples && end > first && (!batch.selected || batch.selected[sample]);
    int32_t targets = 0;
    if (masked)
        targets = mask_rows(lanes, mask, stream_key(batch.rng, batch.purpose, batch.site), batch.sample_keys[sample], first, end - first);
    else
        for (int32_t row = first + lanes.lane(); row < end; row += WarpLanes::width) leave_row(mask, row);
    if (sample < batch.samples && lanes.lane() == 0) mask.list.sample_counts[sample] = targets;
}

// One warp a sample lists its targets behind those of earlier samples.
__global__ void list_targets(const __grid_constant__ Masks masks) {
    const WarpLanes lanes;
    const Mask& mask = masks.mask[blockIdx.y];
    const MaskedBatch& batch = batch_of(mask);
    const TargetList& list = mask.list;
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
        const bool target = row < end && take_row(mask, row);
        const uint32_t found = lanes.ballot(target);
        const int32_t slot = before + __popc(found & ((1u << lanes.lane()) - 1));
        if (target && slot < list.capacity) list.indices[slot] = row;
        before += __popc(found);
    }
}

}  // namespace

int masks(const Mask* masks, int count, void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    for (int done = 0; done < count; done += kMostMasks) {
        Masks some{};
        int64_t samples = 0;
        const int rows = count - done < kMostMasks ? count - done : kMostMasks;
        for (int i = 0; i < rows; ++i) {
            some.mask[i] = masks[done + i];
            const int64_t own = some.mask[i].of_words ? some.mask[i].words.batch.samples : some.mask[i].spans.batch.samples;
            samples = own > samples ? own : samples;
        }
        const dim3 blocks(unsigned(samples / kWarpsPerBlock + 1), unsigned(rows)), threads(32 * kWarpsPerBlock);
        if (const int error = launch_kernel(mask_samples, blocks, threads, 0, on, some)) return error;
        if (const int error = launch_kernel(list_targets, blocks, threads, 0, on, some)) return error;
    }
    return kSuccess;
}

}  // namespace memofast::MEMOFAST_VARIANT
