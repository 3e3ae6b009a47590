#include "cuda/spread_samples.cuh"
#include "rows/token_mask.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

struct Mask {
    TokenMaskArguments a;
    __device__ int32_t operator()(const WarpLanes& lanes, Key key, int64_t sample, int32_t first, int32_t rows) const {
        const Sentence sentence{a.token_ids + first, a.word_ids + first, a.emotion ? a.emotion + first : nullptr,
                                a.seen + first,      a.labels + first,   rows};
        return mask_sentence(lanes, a.policy, key, a.batch.sample_keys[sample], sentence);
    }
};

struct Leave {
    TokenMaskArguments a;
    __device__ void operator()(int32_t row) const {
        a.seen[row] = a.token_ids[row];
        a.labels[row] = -1;
    }
};

struct Take {
    const int32_t* labels;
    __device__ bool operator()(int32_t row) const { return labels[row] >= 0; }
};

}  // namespace

int token_mask(const TokenMaskArguments& a, const TargetList& list, void* stream) {
    return mask_batch(a.batch, list, Mask{a}, Leave{a}, Take{a.labels}, stream);
}

}  // namespace memofast::MEMOFAST_VARIANT
