// Attention of folded queries over the rows of a grid: see memofast/ops/separable_attention.py for what it computes.
#pragma once

#include "variant.h"

namespace memofast {

// Columns of a query, of `gathered` and of their gradients: pixels, shift, then a place of each axis.
struct SeparableAttentionArguments {
    const float* queries;       // [latents, columns]
    const void* pixels;         // [samples, rows, pixel_width] of `type`
    const float *shift, *scale; // [samples, rows]
    const int64_t *rng, *sample_keys;  // read where threshold > 0
    int64_t samples, latents;
    int pixel_width, times, heights, widths;  // rows = times heights widths
    Type type;
    uint32_t site, threshold;  // a 16-bit lane is kept where it is at least this; 0: no dropout
    float keep_scale;          // what kept probabilities are multiplied with
    float* gathered;           // [samples, latents, columns]; written forward, read backward
    float *mass, *lse;         // [samples, latents]; the same
    const float *grad_gathered, *grad_mass, *grad_lse;  // backward: as these three
    float* grad_queries;              // [latents, columns]
    float *grad_shift, *grad_scale;   // [samples, rows], one behind the other
    float* workspace;                 // `separable_attention_workspace` floats

    MEMOFAST_FUNCTION int64_t rows() const { return int64_t(times) * heights * widths; }
    MEMOFAST_FUNCTION int columns() const { return pixel_width + 1 + times + heights + widths; }
};

constexpr int kSeparableLatents = 64;  // that a thread of a CPU, or a block of a GPU, has at a time

MEMOFAST_FUNCTION int64_t separable_blocks(const SeparableAttentionArguments& a) {
    return (a.latents + kSeparableLatents - 1) / kSeparableLatents;
}

MEMOFAST_DECLARE(int separable_attention(const SeparableAttentionArguments& a))
MEMOFAST_DECLARE(int separable_attention_backward(const SeparableAttentionArguments& a))

namespace cuda {
int separable_attention(const SeparableAttentionArguments& a, void* stream);
int separable_attention_backward(const SeparableAttentionArguments& a, void* stream);
}  // namespace cuda

// Floats of `workspace`. A CPU needs none forward and, backward, each block's share of the gradients of shift and scale
// of one sample; a GPU gives each time its own block, whose parts are joined by a second kernel.
inline int64_t separable_attention_workspace(const SeparableAttentionArguments& a, bool backward, bool on_cuda) {
    const int64_t shares = separable_blocks(a) * 2 * a.rows();
    if (!on_cuda) return backward ? shares : 0;
    const int64_t parts = a.samples * a.times * a.latents;
    if (!backward) return parts * (a.pixel_width + a.heights + a.widths + 5);
    return a.samples * shares + parts * a.columns();
}

}  // namespace memofast
