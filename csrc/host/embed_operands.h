// The operands of `embed` in the flat order of memofast/ops/embed_operands.py: text's fields, types, offsets, visual's,
// speech's, rng, sample_keys.
#pragma once

#include "embed.h"
#include "host/tensor.h"

namespace memofast {

struct EmbedOperands {
    static constexpr int kCount = 32, kTypes = 8;
    Tensor tensor[kCount];

    // Whether the kernels can read them as they are: contiguous, on one device, of fitting shapes, tables in fp32.
    bool fit(Element type, bool dropout, bool on_cuda) const;

    // Their addresses and sizes, where they fit; the rest of the arguments is zero.
    EmbedArguments arguments() const;
};

// Where the gradients go: of word table and projected rows (own types) and of everything summed over rows, [sums,
// width] fp32: the three position tables, `types`, then text's gamma and beta, visual's mask, inner gamma and beta,
// outer gamma and beta, speech's. Rows added to text get theirs row by row.
struct EmbedGradients {
    Tensor order, content[3], sums, added, position_order[3];

    // Whether they are the gradients of these operands.
    bool fit(const EmbedOperands& operands, bool on_cuda) const;

    void add_to(EmbedArguments& arguments) const;
};

}  // namespace memofast
