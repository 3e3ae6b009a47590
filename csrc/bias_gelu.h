// GELU(x + bias) of rows, forward and backward.
#pragma once

#include "variant.h"

namespace memofast {

struct BiasGeluArguments {
    const void *x, *bias;  // [rows, width] of `type`, [width] of `bias_type`
    int64_t rows;
    int width;
    Type type, bias_type;
    void* out;         // forward: [rows, width]
    const void* grad;  // backward: [rows, width]
    void* grad_x;
    float *partials, *grad_bias;  // [chunks of 64 rows, width], [width]
};

MEMOFAST_DECLARE(int bias_gelu(const BiasGeluArguments& a))
MEMOFAST_DECLARE(int bias_gelu_backward(const BiasGeluArguments& a))

namespace cuda {
int bias_gelu(const BiasGeluArguments& a, void* stream);
int bias_gelu_backward(const BiasGeluArguments& a, void* stream);
}  // namespace cuda

}  // namespace memofast
