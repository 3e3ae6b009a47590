// Which word pieces are masked, and by what: see memofast/ops/token_mask.py, whose reference this equals bit for bit.
#pragma once

#include "masked_batch.h"

namespace memofast {

enum class TokenKind : int { whole_word = 0, token = 1, emotion_word = 2, whole_word_emotion = 3 };

struct TokenPolicy {
    TokenKind kind;
    int32_t numerator, denominator, emotion_numerator, emotion_denominator;
    bool at_least_one;
    int32_t mask_id, random_low, random_high;
};

struct TokenMaskArguments {
    MaskedBatch batch;
    TokenPolicy policy;
    const int32_t* token_ids;  // [rows]
    const int32_t* word_ids;   // [rows], -1: never masked
    const int32_t* emotion;    // [rows] lexicon class, -1 none; null where the kind needs none
    int32_t* seen;             // [rows] what the model reads
    int32_t* labels;           // [rows] the original id at targets, -1 elsewhere
};

// Returns the number of targets, or a negative Status.
MEMOFAST_DECLARE(int64_t token_mask(const TokenMaskArguments& arguments))

namespace cuda {
// Lists the targets too.
int token_mask(const TokenMaskArguments& arguments, const TargetList& list, void* stream);
}

}  // namespace memofast
