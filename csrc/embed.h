// Multimodal embeddings: see memofast/ops/embed.py for what the tensors mean.
#pragma once

#include "variant.h"

namespace memofast {

// Text, visual or speech rows. Text has no feature_gamma, feature_beta and mask; an absent modality has no offsets.
struct EmbedModality {
    const int32_t* offsets;  // [samples + 1]
    const int32_t* index;    // [rows]: token ids; or the row read, -1 for the mask (null: its own)
    const void* content;     // [contents, width]: word table in word_type, or projected rows in type
    const void* mask;        // [width] in type, or null
    const float *position, *type, *feature_gamma, *feature_beta, *gamma, *beta;
    int64_t rows, contents, positions;
    // Backward only.
    void* grad_content;    // as content
    void* grad_mask;       // [width] fp32, or null
    const int64_t* order;  // [rows]: text rows by a stable sort of their ids
    float *grad_position, *grad_type, *grad_feature_gamma, *grad_feature_beta, *grad_gamma, *grad_beta;
};

struct EmbedArguments {
    EmbedModality modality[3];
    const int32_t* offsets;      // [samples + 1]
    const int64_t* rng;          // {seed, step} or null where threshold is 0
    const int64_t* sample_keys;  // [samples] or null where threshold is 0
    const void* grad;            // [rows, width] in type; backward only
    void* out;                   // [rows, width] in type; forward only
    float* statistics;           // [rows, 4]: mean and 1 / deviation of the outer norm, then of the inner one
    int64_t rows, samples, width;
    uint32_t site, threshold;  // a 16-bit lane is kept where it is at least the threshold
    float keep_scale, eps;
    Type type, word_type;
};

MEMOFAST_DECLARE(int embed_forward(const EmbedArguments&))
MEMOFAST_DECLARE(int embed_backward(const EmbedArguments&))

}  // namespace memofast
