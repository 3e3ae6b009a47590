#include "cpu/spread_samples.h"
#include "rows/token_mask.h"

namespace memofast::MEMOFAST_VARIANT {

int64_t token_mask(const TokenMaskArguments& a) {
    const Key key = stream_key(a.batch.rng, a.batch.purpose, a.batch.site);
    return mask_batch(
        a.batch,
        [&](int64_t sample, int32_t first, int32_t rows) {
            const Sentence sentence{a.token_ids + first, a.word_ids + first, a.emotion ? a.emotion + first : nullptr,
                                    a.seen + first,      a.labels + first,   rows};
            return mask_sentence(OneLane{}, a.policy, key, a.batch.sample_keys[sample], sentence);
        },
        [&](int32_t first, int32_t rows) {
            for (int32_t row = first; row < first + rows; ++row) {
                a.seen[row] = a.token_ids[row];
                a.labels[row] = -1;
            }
        });
}

}  // namespace memofast::MEMOFAST_VARIANT
