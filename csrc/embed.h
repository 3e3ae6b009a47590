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
    // CPU only.
    const int32_t* position_ids;  // [rows]: row of the position table (null: the row's place in its sample)
    const float* added;           // [rows, width]: added to the content before the outer norm, or null; text only
    // Backward only.
    void* grad_content;    // as content
    void* grad_mask;       // [width] fp32, or null
    const int64_t* order;  // [rows]: text rows by a stable sort of their ids
    const int64_t* position_order;  // [rows]: rows by a stable sort of position_ids; as these
    float* grad_added;              // [rows, width]; as added
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
    float* workspace;  // backward on a GPU only: EmbedWorkspace(arguments).floats
};

// Backward on a GPU: rows are shared among blocks, and each block leaves one partial of every sum over its rows.
constexpr int kEmbedRowsPerBlock = 16, kEmbedPartials = 4;

// Where things lie in the workspace, counted in floats.
struct EmbedWorkspace {
    int64_t total[3] = {};        // [rows, width]: gradients of content + position + type
    int64_t content[3] = {};      // [rows, width]: gradients of what was read by `index`
    int64_t partials = 0;         // [blocks, kEmbedPartials, width]
    int64_t first_block[4] = {};  // of each modality's rows
    int64_t floats = 0;

    explicit EmbedWorkspace(const EmbedArguments& a) {
        for (int m = 0; m < 3; ++m) {
            const int64_t rows = a.modality[m].offsets ? a.modality[m].rows : 0;
            total[m] = floats, floats += rows * a.width;
            content[m] = floats, floats += m > 0 && a.modality[m].index ? rows * a.width : 0;
            first_block[m + 1] = first_block[m] + (rows + kEmbedRowsPerBlock - 1) / kEmbedRowsPerBlock;
        }
        partials = floats, floats += first_block[3] * kEmbedPartials * a.width;
    }
};

MEMOFAST_DECLARE(int embed_forward(const EmbedArguments&))
MEMOFAST_DECLARE(int embed_backward(const EmbedArguments&))

namespace cuda {
int embed_forward(const EmbedArguments&, void* stream);
int embed_backward(const EmbedArguments&, void* stream);
}  // namespace cuda

}  // namespace memofast
