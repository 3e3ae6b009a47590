#include "rows/span_mask.h"

#include "spread_samples.cuh"

namespace memofast::cuda {
namespace {

struct Spans {
    SpanPolicy policy;
    int32_t* source;

    __device__ int32_t mask_rows(const WarpLanes& lanes, Key key, int64_t sample_key, int32_t first,
                                 int32_t rows) const {
        return mask_sample(lanes, policy, key, sample_key, first, rows, source + first);
    }
    __device__ void leave_row(int32_t row) const { source[row] = row; }
    // Settles what the row reads, too.
    __device__ bool take_row(int32_t row) const {
        const int32_t read = source[row];
        source[row] = settled(read);
        return read < 0;
    }
};

}  // namespace

int span_mask(const SpanMaskArguments& a, const TargetList& list, void* stream) {
    return mask_batch(a.batch, Spans{a.policy, a.source}, list, stream);
}

}  // namespace memofast::cuda
