// One embedded row: content (a word, or LN of a projected feature or mask vector) + position + type, LN, dropout.
#pragma once

#include "../embed.h"
#include "rows/layer_norm.h"

namespace memofast::MEMOFAST_VARIANT {

// The outer and the inner norm of a row, as they lie in memory.
struct EmbedStatistics {
    Statistics outer, inner;
};

// Where a row lies: position within its modality and within its joint sample, and the sample's name.
struct EmbedPlace {
    int position, joint;
    int64_t sample_key;
};

template <class Group, class Row, class Content, class Out>
MEMOFAST_FUNCTION EmbedStatistics embed_row(const Group& group, Row& z, const EmbedModality& m, Content content,
                                            const EmbedPlace& place, const Dropout& dropout, int width, float eps,
                                            Out* out) {
    constexpr int n = Group::kChunk;
    EmbedStatistics found{};
    float a[n], b[n];
    MEMOFAST_UNROLL for (int k = 0; k < z.chunks(width); ++k) {
        const Span span = group.span(k, width);
        load<n>(content + span.first, span.count, z.at(k));
    }
    if (m.feature_gamma) {
        found.inner = row_statistics(group, z, width, eps);
        MEMOFAST_UNROLL for (int k = 0; k < z.chunks(width); ++k) {
            const Span span = group.span(k, width);
            float* values = z.at(k);
            load<n>(m.feature_gamma + span.first, span.count, a);
            load<n>(m.feature_beta + span.first, span.count, b);
            MEMOFAST_SIMD for (int i = 0; i < n; ++i)
                values[i] = (values[i] - found.inner.mean) * found.inner.rstd * a[i] + b[i];
        }
    }
    const float* position = m.position + int64_t(place.position) * width;
    MEMOFAST_UNROLL for (int k = 0; k < z.chunks(width); ++k) {
        const Span span = group.span(k, width);
        float* values = z.at(k);
        load<n>(position + span.first, span.count, a);
        load<n>(m.type + span.first, span.count, b);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) values[i] += a[i] + b[i];
    }
    found.outer = row_statistics(group, z, width, eps);
    MEMOFAST_UNROLL for (int k = 0; k < z.chunks(width); ++k) {
        const Span span = group.span(k, width);
        float* values = z.at(k);
        load<n>(m.gamma + span.first, span.count, a);
        load<n>(m.beta + span.first, span.count, b);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i)
            values[i] = (values[i] - found.outer.mean) * found.outer.rstd * a[i] + b[i];
        if (dropout.threshold) {
            dropout_factors<n>(dropout, place.sample_key, uint32_t(place.joint), span.first, a);
            MEMOFAST_SIMD for (int i = 0; i < n; ++i) values[i] *= a[i];
        }
        store<n>(out + span.first, span.count, values);
    }
    return found;
}

// Gradient of one row: left in `d` for its content, given to sums.add_total for content + position + type, and added to
// the rows sums.gamma, beta and feature_gamma. `z` and `h` are scratch.
template <class Group, class Row, class Sums, class Content, class Out>
MEMOFAST_FUNCTION void embed_row_backward(const Group& group, Row& d, Row& z, Row& h, Sums& sums,
                                          const EmbedModality& m, Content content, const EmbedPlace& place,
                                          const EmbedStatistics& known, const Dropout& dropout, int width,
                                          const Out* grad) {
    constexpr int n = Group::kChunk;
    const float* position = m.position + int64_t(place.position) * width;
    float a[n], b[n], c[n];
    float mean = 0.0f, slope = 0.0f;
    MEMOFAST_UNROLL for (int k = 0; k < d.chunks(width); ++k) {
        const Span span = group.span(k, width);
        float *dk = d.at(k), *zk = z.at(k), *hk = h.at(k), *sum_gamma = sums.gamma.at(k), *sum_beta = sums.beta.at(k);
        load<n>(content + span.first, span.count, hk);
        load<n>(position + span.first, span.count, a);
        load<n>(m.type + span.first, span.count, b);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) a[i] += b[i];
        if (m.feature_gamma) {
            load<n>(m.feature_gamma + span.first, span.count, b);
            load<n>(m.feature_beta + span.first, span.count, c);
            MEMOFAST_SIMD for (int i = 0; i < n; ++i) {
                hk[i] = (hk[i] - known.inner.mean) * known.inner.rstd;
                zk[i] = hk[i] * b[i] + c[i] + a[i];
            }
        } else {
            MEMOFAST_SIMD for (int i = 0; i < n; ++i) zk[i] = hk[i] + a[i];
        }
        load<n>(grad + span.first, span.count, dk);
        load<n>(m.gamma + span.first, span.count, b);
        if (dropout.threshold) {
            dropout_factors<n>(dropout, place.sample_key, uint32_t(place.joint), span.first, a);
            MEMOFAST_SIMD for (int i = 0; i < n; ++i) dk[i] *= a[i];
        }
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) {
            zk[i] = (zk[i] - known.outer.mean) * known.outer.rstd;
            sum_gamma[i] += dk[i] * zk[i];
            sum_beta[i] += dk[i];
            dk[i] *= b[i];
            c[i] = dk[i] * zk[i];
        }
        mean += sum<n>(dk);
        slope += sum<n>(c);
    }
    mean = group.sum(mean) / width;
    slope = group.sum(slope) / width;
    float inner_mean = 0.0f, inner_slope = 0.0f;
    MEMOFAST_UNROLL for (int k = 0; k < d.chunks(width); ++k) {
        const Span span = group.span(k, width);
        float *dk = d.at(k), *zk = z.at(k), *hk = h.at(k);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) dk[i] = known.outer.rstd * (dk[i] - mean - zk[i] * slope);
        sums.add_total(k, group.span(k, width), dk);
        if (m.feature_gamma) {
            float* sum_feature = sums.feature_gamma.at(k);
            load<n>(m.feature_gamma + span.first, span.count, b);
            MEMOFAST_SIMD for (int i = 0; i < n; ++i) {
                sum_feature[i] += dk[i] * hk[i];
                dk[i] *= b[i];
                c[i] = dk[i] * hk[i];
            }
            inner_mean += sum<n>(dk);
            inner_slope += sum<n>(c);
        }
    }
    if (!m.feature_gamma) return;
    inner_mean = group.sum(inner_mean) / width;
    inner_slope = group.sum(inner_slope) / width;
    MEMOFAST_UNROLL for (int k = 0; k < d.chunks(width); ++k) {
        float *dk = d.at(k), *hk = h.at(k);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i)
            dk[i] = known.inner.rstd * (dk[i] - inner_mean - hk[i] * inner_slope);
    }
}

// First joint row of a modality's rows in a sample.
MEMOFAST_FUNCTION int32_t embed_first(const EmbedArguments& a, int modality, int64_t sample) {
    int32_t first = a.offsets[sample];
    for (int earlier = 0; earlier < modality; ++earlier)
        if (const int32_t* offsets = a.modality[earlier].offsets) first += offsets[sample + 1] - offsets[sample];
    return first;
}

MEMOFAST_FUNCTION Dropout embed_dropout(const EmbedArguments& a) {
    constexpr uint32_t kPurpose = 1;  // philox.Purpose.DROPOUT
    return {a.threshold ? stream_key(a.rng, kPurpose, a.site) : Key{}, a.threshold, a.keep_scale};
}

}  // namespace memofast::MEMOFAST_VARIANT
