#include "cpu/spread_samples.h"
#include "rows/span_mask.h"

namespace memofast::MEMOFAST_VARIANT {

int64_t span_mask(const SpanMaskArguments& a) {
    const Key key = stream_key(a.batch.rng, a.batch.purpose, a.batch.site);
    return mask_batch(
        a.batch,
        [&](int64_t sample, int32_t first, int32_t rows) {
            return mask_sample(OneLane{}, a.policy, key, a.batch.sample_keys[sample], first, rows, a.source + first);
        },
        [&](int32_t first, int32_t rows) {
            for (int32_t row = first; row < first + rows; ++row) a.source[row] = row;
        });
}

}  // namespace memofast::MEMOFAST_VARIANT
