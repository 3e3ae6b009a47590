// Forward: samples are spread over threads. Backward: one unit of work is the rows of up to 64 samples at one
// position of one modality, so that a unit's sum is the gradient of a position, and units added in order give
// every other sum over rows. Where rows name their positions, the gradients of a position are added as those
// of a word are: in the order of a stable sort.
#include "rows/embed.h"

#include <omp.h>
#include <stdlib.h>

#include <type_traits>

#include "cpu/clear.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kMostWidth = 4096, kSamplesPerUnit = 64;
enum Kind { kGamma, kBeta, kTotal, kFeatureGamma, kMask, kKinds };
using Row = MemoryRow<OneLane>;

// Sums over the rows of one modality that share a position.
struct Sums {
    Row gamma, beta, total, feature_gamma, mask;

    MEMOFAST_FUNCTION void add_total(int k, const Span&, const float* values) {
        float* sum = total.at(k);
        MEMOFAST_SIMD for (int i = 0; i < OneLane::kChunk; ++i) sum[i] += values[i];
    }
};

// Keeps what is added to the total, too.
struct SumsAndTotal : Sums {
    float* kept;

    MEMOFAST_FUNCTION void add_total(int k, const Span& span, const float* values) {
        Sums::add_total(k, span, values);
        memcpy(kept + span.first, values, span.count * sizeof(float));
    }
};

bool offsets_are_sound(const int32_t* offsets, int64_t samples, int64_t rows) {
    bool sound = offsets[0] == 0 && offsets[samples] <= rows;
    for (int64_t sample = 0; sample < samples; ++sample) sound &= offsets[sample] <= offsets[sample + 1];
    return sound;
}

bool indices_are_sound(const EmbedModality& m, int64_t samples) {
    const int32_t lowest = m.mask ? -1 : 0;
    bool sound = true;
    for (int64_t sample = 0; sample < samples; ++sample) {
        const int32_t first = m.offsets[sample], end = m.offsets[sample + 1];
        sound &= m.position_ids || end - first <= m.positions;
        for (int32_t row = first; m.position_ids && row < end; ++row)
            sound &= m.position_ids[row] >= 0 && m.position_ids[row] < m.positions;
        for (int32_t row = first; m.index && row < end; ++row) {
            const int32_t index = m.index[row];
            sound &= m.feature_gamma ? index >= lowest && (index < 0 || (index >= first && index < end))
                                     : index >= 0 && index < m.contents;
        }
    }
    return sound;
}

int check(const EmbedArguments& a) {
    if (a.width > kMostWidth) return kUnsupported;
    if (!offsets_are_sound(a.offsets, a.samples, a.rows)) return kBadOffsets;
    for (const EmbedModality& m : a.modality)
        if (m.offsets && !offsets_are_sound(m.offsets, a.samples, m.rows)) return kBadOffsets;
    for (int64_t sample = 0; sample < a.samples; ++sample)
        if (embed_first(a, 3, sample) != a.offsets[sample + 1]) return kBadOffsets;
    for (const EmbedModality& m : a.modality)
        if (m.offsets && !indices_are_sound(m, a.samples)) return kBadIndex;
    return kSuccess;
}

// The content a row reads: a word, a projected row, or the mask vector.
template <class T>
const T* content_of(const EmbedModality& m, int64_t row, int64_t width) {
    const int64_t index = m.index ? m.index[row] : row;
    return index < 0 ? static_cast<const T*>(m.mask) : static_cast<const T*>(m.content) + index * width;
}

void zero_table(void* table, int64_t bytes) {
    constexpr int64_t kBytes = 4 << 20;
#pragma omp parallel for schedule(dynamic)
    for (int64_t start = 0; start < bytes; start += kBytes)
        memset(static_cast<char*>(table) + start, 0, bytes - start < kBytes ? bytes - start : kBytes);
}

bool is_further(const EmbedModality& m) { return m.position_ids || m.added; }

// A word and what is added to it, in `sum`.
template <class Word>
const float* word_and_added(const EmbedModality& m, int64_t row, int64_t width, float* sum) {
    const Word* word = content_of<Word>(m, row, width);
    const float* added = m.added + row * width;
    MEMOFAST_SIMD for (int64_t i = 0; i < width; ++i) sum[i] = to_float(word[i]) + added[i];
    return sum;
}

template <class T, class Word>
struct Embedding {
    const EmbedArguments& a;
    const Dropout dropout;
    const int width;

    EmbedPlace place(int64_t sample, int modality, int32_t position) const {
        const int32_t joint = embed_first(a, modality, sample) - a.offsets[sample] + position;
        return {position, joint, dropout.threshold ? a.sample_keys[sample] : 0};
    }

    // Rows that name their positions or have something added to them.
    void forward_further(int64_t sample, int modality) const {
        const EmbedModality& m = a.modality[modality];
        float scratch[kMostWidth], sum[kMostWidth];
        Row z{scratch};
        const int32_t first = m.offsets[sample], count = m.offsets[sample + 1] - first;
        for (int32_t position = 0; position < count; ++position) {
            const int64_t row = first + position;
            EmbedPlace at = place(sample, modality, position);
            if (m.position_ids) at.position = m.position_ids[row];
            const int64_t joint = a.offsets[sample] + at.joint;
            T* out = static_cast<T*>(a.out) + joint * width;
            const auto embedded = [&](const auto* content) {
                return embed_row(OneLane{}, z, m, content, at, dropout, width, a.eps, out);
            };
            reinterpret_cast<EmbedStatistics*>(a.statistics)[joint] =
                modality > 0 ? embedded(content_of<T>(m, row, width))
                : m.added    ? embedded(word_and_added<Word>(m, row, width, sum))
                             : embedded(content_of<Word>(m, row, width));
        }
    }

    void forward(int64_t sample, int modality) const {
        const EmbedModality& m = a.modality[modality];
        if (is_further(m)) return forward_further(sample, modality);
        float scratch[kMostWidth];
        Row z{scratch};
        const int32_t first = m.offsets[sample], count = m.offsets[sample + 1] - first;
        for (int32_t position = 0; position < count; ++position) {
            const EmbedPlace at = place(sample, modality, position);
            const int64_t joint = a.offsets[sample] + at.joint;
            T* out = static_cast<T*>(a.out) + joint * width;
            const int64_t row = first + position;
            auto* statistics = reinterpret_cast<EmbedStatistics*>(a.statistics) + joint;
            *statistics = modality == 0
                ? embed_row(OneLane{}, z, m, content_of<Word>(m, row, width), at, dropout, width, a.eps, out)
                : embed_row(OneLane{}, z, m, content_of<T>(m, row, width), at, dropout, width, a.eps, out);
        }
    }

    void forward() const {
#pragma omp parallel for schedule(dynamic)
        for (int64_t item = 0; item < 3 * a.samples; ++item)
            if (a.modality[item % 3].offsets) forward(item / 3, int(item % 3));
        const int64_t used = a.offsets[a.samples] * int64_t(width);
        clear(static_cast<T*>(a.out) + used, (a.rows * width - used) * int64_t(sizeof(T)));
        const int64_t unused = a.rows - a.offsets[a.samples];
        clear(a.statistics + 4 * a.offsets[a.samples], unused * 4 * int64_t(sizeof(float)));
    }

    // Adds the rows of the unit's samples to `partial` ([kKinds, width]); content gradients that others may add to, of
    // words and of features with a source, go to `kept` ([rows, width] fp32). Of rows that name their positions or
    // have something added to them (kFurther), gradients of content + position + type go to `totals` ([rows, width]
    // fp32; of text, where nothing else is, `kept`).
    template <bool kFurther>
    void backward(int modality, int32_t position, int64_t block, float* partial, float* kept, float* totals) const {
        const EmbedModality& m = a.modality[modality];
        float scratch[3][kMostWidth], sum[kKinds][kMostWidth];
        const size_t bytes = Row::floats_per_row(width) * sizeof(float);
        for (auto& values : sum) memset(values, 0, bytes);
        Row d{scratch[0]}, z{scratch[1]}, h{scratch[2]};
        std::conditional_t<kFurther, SumsAndTotal, Sums> sums;
        sums.gamma = {sum[kGamma]}, sums.beta = {sum[kBeta]}, sums.total = {sum[kTotal]};
        sums.feature_gamma = {sum[kFeatureGamma]}, sums.mask = {sum[kMask]};
        const int64_t begin = block * kSamplesPerUnit;
        const int64_t end = begin + kSamplesPerUnit < a.samples ? begin + kSamplesPerUnit : a.samples;
        for (int64_t sample = begin; sample < end; ++sample) {
            if (m.offsets[sample + 1] - m.offsets[sample] <= position) continue;
            const int64_t row = m.offsets[sample] + position;
            EmbedPlace at = place(sample, modality, position);
            if constexpr (kFurther) {
                if (m.position_ids) at.position = m.position_ids[row];
                sums.kept = totals + row * width;
            }
            const int64_t joint = a.offsets[sample] + at.joint;
            const T* grad = static_cast<const T*>(a.grad) + joint * width;
            const auto& known = reinterpret_cast<const EmbedStatistics*>(a.statistics)[joint];
            if (kFurther && m.added) {
                float together[kMostWidth];
                const float* content = word_and_added<Word>(m, row, width, together);
                embed_row_backward(OneLane{}, d, z, h, sums, m, content, at, known, dropout, width, grad);
            } else if (modality == 0) {
                const Word* content = content_of<Word>(m, row, width);
                embed_row_backward(OneLane{}, d, z, h, sums, m, content, at, known, dropout, width, grad);
            } else {
                const T* content = content_of<T>(m, row, width);
                embed_row_backward(OneLane{}, d, z, h, sums, m, content, at, known, dropout, width, grad);
            }
            if (modality == 0 || (m.index && m.index[row] >= 0))
                memcpy(kept + row * width, d.values, width * sizeof(float));
            else if (m.index)
                MEMOFAST_SIMD for (int i = 0; i < width; ++i) sum[kMask][i] += d.values[i];
            else
                store_row(d.values, static_cast<T*>(m.grad_content) + row * width);
        }
        for (int kind = 0; kind < kKinds; ++kind) memcpy(partial + kind * width, sum[kind], width * sizeof(float));
    }

    template <class Target>
    void store_row(const float* values, Target* target) const {
        MEMOFAST_SIMD for (int i = 0; i < width; ++i) from_float(values[i], target[i]);
    }

    // Sums the kept gradients of every projected row over the rows that read it, in order.
    void gather_projected(const EmbedModality& m, int64_t sample, const float* kept) const {
        float sum[kMostWidth];
        const int32_t first = m.offsets[sample], end = m.offsets[sample + 1];
        for (int32_t read = first; read < end; ++read) {
            memset(sum, 0, width * sizeof(float));
            for (int32_t row = first; row < end; ++row) {
                if (m.index[row] != read) continue;
                MEMOFAST_SIMD for (int i = 0; i < width; ++i) sum[i] += kept[int64_t(row) * width + i];
            }
            store_row(sum, static_cast<T*>(m.grad_content) + int64_t(read) * width);
        }
    }

    // The run of equal ids that starts at this place of the sorted rows, if one does,
    // to its row of the table's gradient.
    template <class Table>
    void gather_run(const EmbedModality& m, const int32_t* ids, const int64_t* order, int64_t place, const float* kept,
                    Table* table) const {
        const int32_t id = ids[order[place]], end = m.offsets[a.samples];
        if (order[place] >= end || (place > 0 && ids[order[place - 1]] == id)) return;
        float sum[kMostWidth];
        memset(sum, 0, width * sizeof(float));
        for (; place < m.rows && ids[order[place]] == id && order[place] < end; ++place) {
            const float* row = kept + order[place] * width;
            MEMOFAST_SIMD for (int i = 0; i < width; ++i) sum[i] += row[i];
        }
        store_row(sum, table + int64_t(id) * width);
    }

    // The gradient of a table, from those of the rows [rows, width] that read it by their ids.
    template <class Table>
    void gather_table(const EmbedModality& m, const int32_t* ids, const int64_t* order, const float* kept, Table* table,
                      int64_t table_rows) const {
        zero_table(table, table_rows * width * int64_t(sizeof(Table)));
#pragma omp parallel for schedule(dynamic, 16)
        for (int64_t place = 0; place < m.rows; ++place) gather_run(m, ids, order, place, kept, table);
    }
};

// target = sum over `count` rows of `width` floats, `stride` apart.
void add_rows(const float* rows, int64_t count, int64_t stride, int64_t width, float* target) {
    memset(target, 0, width * sizeof(float));
    for (int64_t row = 0; row < count; ++row)
        MEMOFAST_SIMD for (int64_t i = 0; i < width; ++i) target[i] += rows[row * stride + i];
}

struct Units {
    int64_t longest[3], first[4], blocks;  // units of modality m: first[m] .. first[m + 1], position by position

    explicit Units(const EmbedArguments& a)
        : longest{}, first{}, blocks((a.samples + kSamplesPerUnit - 1) / kSamplesPerUnit) {
        for (int m = 0; m < 3; ++m) {
            const int32_t* offsets = a.modality[m].offsets;
            for (int64_t sample = 0; offsets && sample < a.samples; ++sample)
                if (const int64_t length = offsets[sample + 1] - offsets[sample]; length > longest[m])
                    longest[m] = length;
            first[m + 1] = first[m] + longest[m] * blocks;
        }
    }
};

void reduce_positions(const EmbedModality& m, int64_t longest, int64_t blocks, const float* partial, int64_t width) {
    const int64_t stride = kKinds * width;
#pragma omp parallel for
    for (int64_t position = 0; position < m.positions; ++position)
        add_rows(partial + kTotal * width + position * blocks * stride, position < longest ? blocks : 0, stride, width,
                 m.grad_position + position * width);
}

void reduce_vectors(const EmbedArguments& a, const Units& units, const float* partial) {
    const int64_t width = a.width, stride = kKinds * width;
#pragma omp parallel for schedule(dynamic)
    for (int item = 0; item < 3 * 6; ++item) {
        const EmbedModality& m = a.modality[item / 6];
        float* const targets[] = {m.grad_gamma, m.grad_beta, m.grad_type,
                                  m.grad_feature_gamma, static_cast<float*>(m.grad_mask), m.grad_feature_beta};
        const int target = item % 6, kind = target == kKinds ? int(kTotal) : target;
        const int64_t first = units.first[item / 6], count = units.first[item / 6 + 1] - first;
        if (targets[target]) add_rows(partial + first * stride + kind * width, count, stride, width, targets[target]);
    }
}

template <class T, class Word>
int backward(const EmbedArguments& a) {
    const Units units(a);
    const int64_t width = a.width, stride = kKinds * width;
    int64_t kept_from[3], totals_from[3], floats = units.first[3] * stride;
    for (int m = 0; m < 3; ++m) {
        const EmbedModality& own = a.modality[m];
        totals_from[m] = kept_from[m] = floats;
        if (own.offsets && own.index && !own.grad_added) floats += own.rows * width;
        if (m == 0) continue;
        totals_from[m] = floats;
        if (own.offsets && own.position_ids) floats += own.rows * width;
    }
    float* partial = static_cast<float*>(malloc((floats + 1) * sizeof(float)));
    if (!partial) return kOutOfMemory;
    const auto rows_from = [&](int m, int64_t from) {
        float* added = a.modality[m].grad_added;  // of text, whose kept rows are just that
        return added ? added : partial + from;
    };
    const Embedding<T, Word> embedding{a, embed_dropout(a), int(width)};
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < units.first[3]; ++unit) {
        const int modality = unit < units.first[1] ? 0 : unit < units.first[2] ? 1 : 2;
        const int64_t own = unit - units.first[modality];
        const auto backward = is_further(a.modality[modality]) ? &Embedding<T, Word>::template backward<true>
                                                               : &Embedding<T, Word>::template backward<false>;
        (embedding.*backward)(modality, int32_t(own / units.blocks), own % units.blocks, partial + unit * stride,
                              rows_from(modality, kept_from[modality]), rows_from(modality, totals_from[modality]));
    }
    reduce_vectors(a, units, partial);
    for (int modality = 0; modality < 3; ++modality) {
        const EmbedModality& m = a.modality[modality];
        if (!m.offsets) continue;
        const float* kept = rows_from(modality, kept_from[modality]);
        const float* totals = rows_from(modality, totals_from[modality]);
        if (m.position_ids)
            embedding.gather_table(m, m.position_ids, m.position_order, totals, m.grad_position, m.positions);
        else
            reduce_positions(m, units.longest[modality], units.blocks, partial + units.first[modality] * stride, width);
        if (modality == 0) {
            embedding.gather_table(m, m.index, m.order, kept, static_cast<Word*>(m.grad_content), m.contents);
            const int64_t end = m.offsets[a.samples];
            if (m.grad_added) clear(m.grad_added + end * width, (m.rows - end) * width * int64_t(sizeof(float)));
            continue;
        }
        if (m.index) {
#pragma omp parallel for schedule(dynamic)
            for (int64_t sample = 0; sample < a.samples; ++sample) embedding.gather_projected(m, sample, kept);
        }
        const int64_t used = m.offsets[a.samples] * width;
        clear(static_cast<T*>(m.grad_content) + used, (m.rows * width - used) * int64_t(sizeof(T)));
    }
    free(partial);
    return kSuccess;
}

template <class T, class Word>
int forward(const EmbedArguments& a) {
    Embedding<T, Word>{a, embed_dropout(a), int(a.width)}.forward();
    return kSuccess;
}

}  // namespace

#define MEMOFAST_EMBED(name)                                                                 \
    (a.type == Type::float32                                                                 \
         ? (a.word_type == Type::float32 ? name<float, float>(a) : name<float, BFloat16>(a)) \
         : (a.word_type == Type::float32 ? name<BFloat16, float>(a) : name<BFloat16, BFloat16>(a)))

int embed_forward(const EmbedArguments& a) {
    const int status = check(a);
    return status ? status : MEMOFAST_EMBED(forward);
}

int embed_backward(const EmbedArguments& a) {
    const int status = check(a);
    return status ? status : MEMOFAST_EMBED(backward);
}

}  // namespace memofast::MEMOFAST_VARIANT
