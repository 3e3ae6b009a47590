// LayerNorm(residual + dropout(x + bias)) of rows, forward and backward.
#pragma once

#include "variant.h"

namespace memofast {

struct DropoutAddNormArguments {
    const void *x, *residual;   // [rows, width] of `type`
    const float *gamma, *beta;  // [width]; beta only forward
    const void* bias;           // [width] of `bias_type`, or null
    float* statistics;          // [rows, 2] mean and 1 / deviation: written forward, read backward
    const int64_t *rng, *sample_keys;  // read where threshold > 0
    const int32_t* offsets;            // [samples + 1], or null: every row counts
    int64_t rows;
    int width, samples;
    Type type, bias_type;
    uint32_t site, threshold;  // dropout keeps 16-bit lanes of at least this
    float scale, eps;
    void* out;  // [rows, width], forward
    const void* grad;              // backward: [rows, width]
    void *grad_x, *grad_residual;  // grad_x is null where it equals grad_residual
    float* partials;               // [chunks of 64 rows, sums, width]: of gamma, beta and, with a bias, bias
    float* sums;                   // [sums, width]
};

MEMOFAST_DECLARE(int dropout_add_norm(const DropoutAddNormArguments& a))
MEMOFAST_DECLARE(int dropout_add_norm_backward(const DropoutAddNormArguments& a))

namespace cuda {
int dropout_add_norm(const DropoutAddNormArguments& a, void* stream);
int dropout_add_norm_backward(const DropoutAddNormArguments& a, void* stream);
}  // namespace cuda

}  // namespace memofast
