// One row of LayerNorm(residual + dropout(x + bias)).
// Backward sums the row again from x and residual and draws its dropout again.
#pragma once

#include "../dropout_add_norm.h"
#include "rows/layer_norm.h"

namespace memofast::MEMOFAST_VARIANT {

template <class T, class B>
struct NormRow {
    const T *x, *residual;
    const B* bias;  // or null
    const float *gamma, *beta;
    Dropout dropout;
    int64_t sample_key;
    uint32_t position;
    int width;
};

// Chunk k of residual + dropout(x + bias); `factors` gets what dropout multiplied with.
template <class Group, class T, class B>
MEMOFAST_FUNCTION void sum_chunk(const NormRow<T, B>& row, const Span& span, float* z, float* factors) {
    constexpr int n = Group::kChunk;
    float x[n];
    load<n>(row.x + span.first, span.count, x);
    load<n>(row.residual + span.first, span.count, z);
    if (row.bias) {
        float bias[n];
        load<n>(row.bias + span.first, span.count, bias);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) x[i] += bias[i];
    }
    if (row.dropout.threshold) {
        dropout_factors<n>(row.dropout, row.sample_key, row.position, span.first, factors);
    } else {
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) factors[i] = 1.0f;
    }
    MEMOFAST_SIMD for (int i = 0; i < n; ++i) z[i] += factors[i] * x[i];
}

template <class Group, class Row, class T, class B>
MEMOFAST_FUNCTION void norm_row(const Group& group, const NormRow<T, B>& row, Row& z, float eps, T* out,
                                float* statistics) {
    constexpr int n = Group::kChunk;
    MEMOFAST_UNROLL for (int k = 0; k < z.chunks(row.width); ++k) {
        float factors[n];
        sum_chunk<Group>(row, group.span(k, row.width), z.at(k), factors);
    }
    const Statistics s = row_statistics(group, z, row.width, eps);
    statistics[0] = s.mean;
    statistics[1] = s.rstd;
    MEMOFAST_UNROLL for (int k = 0; k < z.chunks(row.width); ++k) {
        const Span span = group.span(k, row.width);
        float gamma[n], beta[n], y[n];
        const float* v = z.at(k);
        load<n>(row.gamma + span.first, span.count, gamma);
        load<n>(row.beta + span.first, span.count, beta);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) y[i] = (v[i] - s.mean) * s.rstd * gamma[i] + beta[i];
        store<n>(out + span.first, span.count, y);
    }
}

// `normal`, `scaled` and `factors` are rows of scratch; sums_* get this row's share of the gradients of gamma, beta and
// bias (sums_bias may be null), in the group's own order (`slot`).
template <class Group, class Row, class T, class B>
MEMOFAST_FUNCTION void norm_row_backward(const Group& group, const NormRow<T, B>& row, const float* statistics,
                                         const T* grad, Row& normal, Row& scaled, Row& factors, T* grad_x,
                                         T* grad_residual, float* sums_gamma, float* sums_beta, float* sums_bias) {
    constexpr int n = Group::kChunk;
    const float mean = statistics[0], rstd = statistics[1];
    float total = 0.0f, along = 0.0f;
    MEMOFAST_UNROLL for (int k = 0; k < normal.chunks(row.width); ++k) {
        const Span span = group.span(k, row.width);
        float *v = normal.at(k), *d = scaled.at(k);
        float g[n], gamma[n];
        sum_chunk<Group>(row, span, v, factors.at(k));
        load<n>(grad + span.first, span.count, g);
        load<n>(row.gamma + span.first, span.count, gamma);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) v[i] = (v[i] - mean) * rstd;
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) d[i] = g[i] * gamma[i];
        MEMOFAST_SIMD_SUM(total) for (int i = 0; i < n; ++i) total += d[i];
        MEMOFAST_SIMD_SUM(along) for (int i = 0; i < n; ++i) along += d[i] * v[i];
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) sums_gamma[group.slot(k, i)] += g[i] * v[i];
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) sums_beta[group.slot(k, i)] += g[i];
    }
    const float shift = group.sum(total) / row.width, slope = group.sum(along) / row.width;
    MEMOFAST_UNROLL for (int k = 0; k < normal.chunks(row.width); ++k) {
        const Span span = group.span(k, row.width);
        const float *v = normal.at(k), *f = factors.at(k);
        float* d = scaled.at(k);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) d[i] = rstd * (d[i] - shift - slope * v[i]);
        store<n>(grad_residual + span.first, span.count, d);
        MEMOFAST_SIMD for (int i = 0; i < n; ++i) d[i] *= f[i];
        if (grad_x) store<n>(grad_x + span.first, span.count, d);
        if (sums_bias) {
            // past the row's end d is not zero, but those slots are never read
            MEMOFAST_SIMD for (int i = 0; i < n; ++i) sums_bias[group.slot(k, i)] += d[i];
        }
    }
}

}  // namespace memofast::MEMOFAST_VARIANT
