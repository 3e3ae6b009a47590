// Which feature rows are masked: see memofast/ops/span_mask.py, whose reference this equals bit for bit.
#pragma once

#include "masked_batch.h"

namespace memofast {

enum class SpanKind : int { span = 0, independent = 1, single_span = 2, mixed = 3 };

struct SpanPolicy {
    SpanKind kind;
    int32_t numerator, denominator, length;
    bool dice, original;
};

struct SpanMaskArguments {
    MaskedBatch batch;
    SpanPolicy policy;
    int32_t* source;  // [rows]
};

// Returns the number of targets, or a negative Status.
MEMOFAST_DECLARE(int64_t span_mask(const SpanMaskArguments& arguments))

namespace cuda {
// Lists the targets too.
int span_mask(const SpanMaskArguments& arguments, const TargetList& list, void* stream);
}

}  // namespace memofast
