#include "rows/token_mask.h"

#include "spread_samples.cuh"

namespace memofast::cuda {
namespace {

struct WordPieces {
    TokenMaskArguments a;

    __device__ int32_t mask_rows(const WarpLanes& lanes, Key key, int64_t sample_key, int32_t first,
                                 int32_t rows) const {
        const Sentence sentence{a.token_ids + first, a.word_ids + first, a.emotion ? a.emotion + first : nullptr,
                                a.seen + first,      a.labels + first,   rows};
        return mask_sentence(lanes, a.policy, key, sample_key, sentence);
    }
    __device__ void leave_row(int32_t row) const {
        a.seen[row] = a.token_ids[row];
        a.labels[row] = -1;
    }
    __device__ bool take_row(int32_t row) const { return a.labels[row] >= 0; }
};

}  // namespace

int token_mask(const TokenMaskArguments& a, const TargetList& list, void* stream) {
    return mask_batch(a.batch, WordPieces{a}, list, stream);
}

}  // namespace memofast::cuda
