// The masked word pieces of one sample.
#pragma once

#include "rows/sample_lanes.h"
#include "../token_mask.h"

namespace memofast::MEMOFAST_VARIANT {

// The rows of one sample.
struct Sentence {
    const int32_t* token_ids;
    const int32_t* word_ids;
    const int32_t* emotion;
    int32_t* seen;
    int32_t* labels;
    int32_t n;

    MEMOFAST_FUNCTION bool starts_word(int32_t row) const {
        return word_ids[row] >= 0 && (row == 0 || word_ids[row - 1] != word_ids[row]);
    }

    // Whether any piece of the row's word has a lexicon class.
    MEMOFAST_FUNCTION bool word_is_emotional(int32_t row) const {
        const int32_t word = word_ids[row];
        while (row > 0 && word_ids[row - 1] == word) --row;
        for (; row < n && word_ids[row] == word; ++row)
            if (emotion[row] >= 0) return true;
        return false;
    }

    MEMOFAST_FUNCTION void write(int32_t row, bool target, int32_t id) const {
        seen[row] = target ? id : token_ids[row];
        labels[row] = target ? token_ids[row] : -1;
    }
};

MEMOFAST_FUNCTION uint64_t word_threshold(int32_t numerator, int32_t denominator) {
    return (uint64_t(numerator) << 32) / uint64_t(denominator);
}

// Threshold of words without a lexicon class, of which a sentence has words - emotional.
MEMOFAST_FUNCTION uint64_t other_words_threshold(const TokenPolicy& p, int64_t words, int64_t emotional) {
    const int64_t wanted = p.numerator * int64_t(p.emotion_denominator) * words;
    const int64_t served = p.emotion_numerator * int64_t(p.denominator) * emotional;
    const int64_t room = p.denominator * int64_t(p.emotion_denominator) * (words - emotional);
    const uint64_t bottom = room > 1 ? uint64_t(room) : 1, top = wanted > served ? uint64_t(wanted - served) : 0;
    return ((top < bottom ? top : bottom) << 32) / bottom;
}

// Decides every row by the words of `block`; returns the number of targets.
template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_by_words(const Lanes& lanes, const TokenPolicy& policy, Key key, int64_t sample_key,
                                        const Sentence& sentence, uint32_t block, uint64_t plain, uint64_t emotional) {
    const bool whole_words = policy.kind == TokenKind::whole_word || policy.kind == TokenKind::whole_word_emotion;
    const bool always_mask = policy.kind == TokenKind::whole_word_emotion;
    WordReader<Lanes::width == 1 ? 8 : 1> decisions{key, sample_key, block};
    WordReader<1> random{key, sample_key, 1};
    int32_t targets = 0;
    for (int32_t row = lanes.lane(); row < sentence.n; row += Lanes::width) {
        const int32_t word = sentence.word_ids[row];
        if (word < 0) {
            sentence.write(row, false, 0);
            continue;
        }
        const bool has_class = plain != emotional &&
                               (whole_words ? sentence.word_is_emotional(row) : sentence.emotion[row] >= 0);
        const uint64_t limit = has_class ? emotional : plain;
        const uint64_t decision = decisions(uint32_t(whole_words ? word : row));
        int32_t id = sentence.token_ids[row];
        if (decision < limit) {
            if (always_mask || decision < limit * 8 / 10)
                id = policy.mask_id;
            else if (decision < limit * 9 / 10)
                id = policy.random_low +
                     int32_t(below(random(uint32_t(row)), uint32_t(policy.random_high - policy.random_low)));
            ++targets;
        }
        sentence.write(row, decision < limit, id);
    }
    return lanes.sum(targets);
}

// The row where word number `ordinal` starts; n where there is none.
template <class Lanes>
MEMOFAST_FUNCTION int32_t row_of_word(const Lanes& lanes, const Sentence& sentence, int32_t ordinal) {
    for (int32_t base = 0; base < sentence.n; base += Lanes::width) {
        const int32_t row = base + lanes.lane();
        uint32_t starting = lanes.ballot(row < sentence.n && sentence.starts_word(row));
        for (; starting; starting &= starting - 1)
            if (ordinal-- == 0) return base + lowest_bit(starting);
    }
    return sentence.n;
}

template <class Lanes>
MEMOFAST_FUNCTION void count_words(const Lanes& lanes, const Sentence& sentence, bool with_emotion, int32_t* words,
                                   int32_t* emotional) {
    int32_t all = 0, some = 0;
    for (int32_t row = lanes.lane(); row < sentence.n; row += Lanes::width) {
        if (!sentence.starts_word(row)) continue;
        ++all;
        some += with_emotion && sentence.word_is_emotional(row);
    }
    *words = lanes.sum(all);
    *emotional = lanes.sum(some);
}

// Masks one word, or the first piece, of a sentence that has no target; returns its pieces.
template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_at_least_one(const Lanes& lanes, const TokenPolicy& policy, Key key, int64_t sample_key,
                                            const Sentence& sentence) {
    const bool whole_words = policy.kind == TokenKind::whole_word || policy.kind == TokenKind::whole_word_emotion;
    int32_t ordinal = 0;
    if (whole_words) {
        int32_t words, emotional;
        count_words(lanes, sentence, false, &words, &emotional);
        ordinal = int32_t(below(draw(key, sample_key, 0, 3).word[0], uint32_t(words)));
    }
    const int32_t start = row_of_word(lanes, sentence, ordinal);
    int32_t end = start < sentence.n ? start + 1 : start;
    while (whole_words && end < sentence.n && sentence.word_ids[end] == sentence.word_ids[start]) ++end;
    lanes.sync();  // other lanes wrote these rows as unmasked
    for (int32_t row = start + lanes.lane(); row < end; row += Lanes::width) sentence.write(row, true, policy.mask_id);
    return end - start;
}

// Writes `seen` and `labels` of one sample; returns its number of targets.
template <class Lanes>
MEMOFAST_FUNCTION int32_t mask_sentence(const Lanes& lanes, const TokenPolicy& policy, Key key, int64_t sample_key,
                                        const Sentence& sentence) {
    const uint64_t probability = word_threshold(policy.numerator, policy.denominator);
    uint64_t plain = probability, emotional = probability;
    if (policy.kind == TokenKind::emotion_word || policy.kind == TokenKind::whole_word_emotion) {
        emotional = word_threshold(policy.emotion_numerator, policy.emotion_denominator);
        plain = 0;
    }
    if (policy.kind == TokenKind::whole_word_emotion) {
        int32_t words, with_class;
        count_words(lanes, sentence, true, &words, &with_class);
        plain = other_words_threshold(policy, words, with_class);
    }
    int32_t targets = mask_by_words(lanes, policy, key, sample_key, sentence, 0, plain, emotional);
    if (targets == 0 && policy.kind == TokenKind::emotion_word)
        targets = mask_by_words(lanes, policy, key, sample_key, sentence, 2, probability, probability);
    if (targets == 0 && policy.at_least_one)
        targets = mask_at_least_one(lanes, policy, key, sample_key, sentence);
    return targets;
}

}  // namespace memofast::MEMOFAST_VARIANT
