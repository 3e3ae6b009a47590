#include "cpu/spread_samples.h"
#include "rows/span_mask.h"

namespace memofast::MEMOFAST_VARIANT {

int span_mask(const SpanMaskArguments& a) {
    const Key key = stream_key(a.batch.rng, a.batch.purpose, a.batch.site);
    return mask_batch(
        a.batch,
        [&](int64_t sample, int32_t first, int32_t rows) {
            return mask_sample(OneLane{}, a.policy, key, a.batch.sample_keys[sample], first, rows, a.source + first);
        },
        [&](int32_t first, int32_t rows) {
            for (int32_t row = first; row < first + rows; ++row) a.source[row] = row;
        },
        [&](int32_t row) {
            const int32_t source = a.source[row];
            a.source[row] = settled(source);
            return source < 0;
        });
}

}  // namespace memofast::MEMOFAST_VARIANT
