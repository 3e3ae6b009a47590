// The masks of several modalities at once, on a GPU: in one launch, and one more for the lists of all their targets.
#pragma once

#include "span_mask.h"
#include "token_mask.h"

namespace memofast {

struct Mask {
    bool of_words;  // `words` counts, else `spans`
    SpanMaskArguments spans;
    TokenMaskArguments words;
    TargetList list;
};

namespace cuda {
int masks(const Mask* masks, int count, void* stream);
}

}  // namespace memofast
