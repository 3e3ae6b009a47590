// LayerNorm of one row held by a lane group, in fp32.
#pragma once

#include "rows/lanes.h"

namespace memofast::MEMOFAST_VARIANT {

struct Statistics {
    float mean, rstd;
};

MEMOFAST_FUNCTION float reciprocal_root(float value) {
#ifdef __CUDA_ARCH__
    return rsqrtf(value);
#else
    return 1.0f / __builtin_sqrtf(value);
#endif
}

// Mean and 1 / sqrt(variance + eps), in two passes over the row.
template <class Group, class Row>
MEMOFAST_FUNCTION Statistics row_statistics(const Group& group, Row& row, int width, float eps) {
    constexpr int n = Group::kChunk;
    float total = 0.0f;
    MEMOFAST_UNROLL for (int k = 0; k < row.chunks(width); ++k) total += sum<n>(row.at(k));
    const float mean = group.sum(total) / width;
    float squares = 0.0f;
    MEMOFAST_UNROLL for (int k = 0; k < row.chunks(width); ++k) {
        const Span span = group.span(k, width);
        const float* z = row.at(k);
        MEMOFAST_SIMD_SUM(squares) for (int i = 0; i < n; ++i) {
            const float difference = i < span.count ? z[i] - mean : 0.0f;
            squares += difference * difference;
        }
    }
    return {mean, reciprocal_root(group.sum(squares) / width + eps)};
}

}  // namespace memofast::MEMOFAST_VARIANT
