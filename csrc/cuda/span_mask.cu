#include "cuda/spread_samples.cuh"
#include "rows/span_mask.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

struct Mask {
    SpanMaskArguments a;
    __device__ int32_t operator()(const WarpLanes& lanes, Key key, int64_t sample, int32_t first, int32_t rows) const {
        return mask_sample(lanes, a.policy, key, a.batch.sample_keys[sample], first, rows, a.source + first);
    }
};

struct Leave {
    int32_t* source;
    __device__ void operator()(int32_t row) const { source[row] = row; }
};

struct Take {
    int32_t* source;
    __device__ bool operator()(int32_t row) const {
        const int32_t read = source[row];
        source[row] = settled(read);
        return read < 0;
    }
};

}  // namespace

int span_mask(const SpanMaskArguments& a, const TargetList& list, void* stream) {
    return mask_batch(a.batch, list, Mask{a}, Leave{a.source}, Take{a.source}, stream);
}

}  // namespace memofast::MEMOFAST_VARIANT
