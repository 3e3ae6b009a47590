// Attention on a CPU: one task per (sequence, head), most scores first,
// everything it needs in this thread's own memory.
//
// Scores exist for kBlock queries at a time and stay in cache; backward adds keys' and values' gradients
// over these blocks, so no sum ever depends on the number of threads. Inputs are bf16 pairs where the
// CPU multiplies those, floats everywhere else.
#include "rows/attention.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/clear.h"
#include "cpu/matmul.h"
#include "cpu/softmax.h"
#include "rows/lanes.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int64_t kBlock = 48;  // queries at a time: a multiple of kTileRows, of 16 (draws) and of 2 (pairs)
constexpr uint32_t kAttentionDropout = 2;  // Purpose.ATTENTION_DROPOUT

// Memory of one thread, kept between calls and grown as needed.
struct Buffer {
    char* data = nullptr;
    int64_t size = 0;
    ~Buffer() { free(data); }
    bool reserve(int64_t bytes) {
        if (bytes <= size) return true;
        free(data);
        data = static_cast<char*>(aligned_alloc(64, size_t(round_up(bytes, 4096))));
        size = data ? bytes : 0;
        return data;
    }
};

thread_local Buffer scratch, order;

template <class Element>
MEMOFAST_FUNCTION void store_row(const float* row, float factor, Element* to, int64_t width) {
#pragma omp simd
    for (int64_t d = 0; d < width; ++d) from_float(row[d] * factor, to[d]);
}

// How inputs and scores become operands of `product`, for either arithmetic.
template <class Element>
struct Single : FloatArithmetic {
    static constexpr bool kPacksLeft = true;
    // [rows, step], the right operand of a sum over rows.
    static void pack_rows(const Element* from, int64_t from_step, float* to, int64_t step, int64_t rows,
                          int64_t width) {
        for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
            for (int64_t d = 0; d < width; ++d) to[r * step + d] = to_float(from[r * from_step + d]);
            for (int64_t d = width; d < step; ++d) to[r * step + d] = 0;
        }
    }
    // [width, step], the right operand of a sum over the width. `space` holds [rows, width].
    static void pack_columns(const Element* from, int64_t from_step, float* to, int64_t step, int64_t rows,
                             int64_t width, float* space) {
        if constexpr (sizeof(Element) == sizeof(float)) return transpose(from, from_step, to, step, rows, width);
        pack_rows(from, from_step, space, width, rows, width);
        transpose(space, width, to, step, rows, width);
    }
    // The left operand of a sum over the width: the packed rows.
    static Left<float> left(const Element*, int64_t, const float* packed, int64_t step) { return {packed, step, 1}; }
    static Left<float> left_scores(const float* scores, int64_t step, int64_t, float*) { return {scores, step, 1}; }
    static Left<float> left_scores_transposed(float* scores, int64_t step, int64_t, float*) {
        return {scores, 1, step};
    }
};

#if defined(__AVX512F__)
struct Pairs : PairArithmetic {
    static constexpr bool kPacksLeft = false;
    static void pack_rows(const BFloat16* from, int64_t from_step, uint32_t* to, int64_t step, int64_t rows,
                          int64_t width) {
        for (int64_t r = 0; r < rows; r += 2, to += step) {
            const BFloat16* first = from + r * from_step;
            const BFloat16* second = first + from_step;
            if (r + 1 < rows) {
#pragma omp simd
                for (int64_t d = 0; d < width; ++d) to[d] = first[d].bits | uint32_t(second[d].bits) << 16;
            } else {
#pragma omp simd
                for (int64_t d = 0; d < width; ++d) to[d] = first[d].bits;
            }
            for (int64_t d = width; d < step; ++d) to[d] = 0;
        }
    }
    static void pack_columns(const BFloat16* from, int64_t from_step, uint32_t* to, int64_t step, int64_t rows,
                             int64_t width, uint32_t*) {
        transpose(from, from_step / 2, to, step, rows, width / 2);
    }
    // The left operand of a sum over the width: the input as it lies.
    static Left<uint32_t> left(const BFloat16* from, int64_t from_step, const uint32_t*, int64_t) {
        return {reinterpret_cast<const uint32_t*>(from), from_step / 2, 1};
    }
    static Left<uint32_t> left_scores(float* scores, int64_t step, int64_t rows, uint32_t* space) {
        uint16_t* to = reinterpret_cast<uint16_t*>(space);
        for (int64_t j = 0; j < rows * step; j += kLanes)
            *reinterpret_cast<Halves*>(to + j) =
                __builtin_convertvector(rounded_bf16(floats(scores + j)) >> 16, Halves);
        return {space, step / 2, 1};
    }
    // Two rows are interleaved; the row after the last reads as zero.
    static Left<uint32_t> left_scores_transposed(float* scores, int64_t step, int64_t rows, uint32_t* space) {
        if (rows & 1) memset(scores + rows * step, 0, size_t(4 * step));
        for (int64_t r = 0; r < rows; r += 2)
            for (int64_t j = 0; j < step; j += kLanes) {
                float* pair = scores + r * step + j;
                *reinterpret_cast<Units*>(space + r / 2 * step + j) =
                    rounded_bf16(floats(pair)) >> 16 | rounded_bf16(floats(pair + step));
            }
        return {space, 1, step};
    }
};
#endif

struct Shape {
    int64_t keys, queries, width;  // rounded up to whole vectors
    Shape(int64_t key_rows, int64_t query_rows, int64_t head_width)
        : keys(round_up(key_rows, 16)), queries(round_up(query_rows, 16)), width(round_up(head_width, kLanes)) {}
    int64_t key_panel() const { return keys * width; }
    int64_t query_panel() const { return queries * width; }
    int64_t panel() const { return keys > queries ? key_panel() : query_panel(); }
    int64_t block() const { return kBlock * keys; }
};

// Hands out parts of the thread's buffer; every part is a whole number of vectors.
struct Parts {
    char* next = scratch.data;
    template <class Unit>
    Unit* take(int64_t units) {
        Unit* part = reinterpret_cast<Unit*>(next);
        next += round_up(4 * units, 64);
        return part;
    }
};

int64_t scratch_bytes(int64_t most_keys, int64_t most_queries, int64_t width, bool backward) {
    const Shape shape(most_keys, most_queries, width);
    const int64_t rows = kBlock * shape.width;
    const int64_t forward_units = shape.panel() + 3 * shape.key_panel() + 3 * shape.block() + rows;
    return 4 * (forward_units + (backward ? 2 * shape.key_panel() + 2 * shape.query_panel() + shape.block() : 0)) +
        64 * 32;
}

struct Task {
    SequenceRows keys, queries;
    bool causal;
    int64_t head;
    Key key;  // of the dropout
    int64_t sample_key;

    // How many keys a query, and with it those before it, sees.
    int64_t seen_by(int64_t query) const {
        const int64_t more = keys.length - queries.length, apart = more > 0 ? more : -more;
        const int64_t reach = query + 1 + apart;
        return causal && reach < keys.length ? reach : keys.length;
    }
};

// Scores past those that a query sees, up to the end of the block's, are zero.
MEMOFAST_FUNCTION void clear_unseen(float* row, int64_t own, int64_t columns) {
    own = round_up(own, kLanes);
    if (own < columns) memset(row + own, 0, size_t(columns - own) * sizeof(float));
}

// One head of one sequence, of operands or of their gradients. The steps are of a row, and from keys to values.
template <class Element>
struct Operand {
    Element *q, *k, *v;
    int64_t q_step, kv_step;

    template <class Address>
    Operand(const AttentionArguments& a, const Task& task, Address q_rows, Address kv_rows)
        : q(static_cast<Element*>(q_rows) + task.queries.first * a.q_step + task.head * a.width),
          k(static_cast<Element*>(kv_rows) + task.keys.first * a.kv_step + task.head * a.width),
          v(k + a.heads * a.width), q_step(a.q_step), kv_step(a.kv_step) {}
};

// The 16-bit lanes of queries first .. first + rows - 1 for the first `keys` keys: lanes [rows rounded up to
// kLanes / 2, step].
void draw_lanes(const Task& task, int64_t first, int64_t rows, int64_t keys, uint16_t* lanes, int64_t step) {
    constexpr int kDraws = kLanes / 2;
    Wide positions;
    for (int i = 0; i < kDraws; ++i) positions[i] = uint64_t(task.head << 16 | (first + i));
    for (int64_t r = 0; r < rows; r += kDraws, positions += kDraws)
        for (int64_t block = 0; 8 * block < keys; ++block) {
            Wide words[4];
            draw(task.key, task.sample_key, positions, uint32_t(block), words);
            const Wide low = (words[0] & 0xFFFFFFFFu) | words[1] << 32,
                       high = (words[2] & 0xFFFFFFFFu) | words[3] << 32;
            for (int i = 0; i < kDraws; ++i) {
                const uint64_t eight[2] = {low[i], high[i]};
                memcpy(lanes + (r + i) * step + 8 * block, eight, sizeof eight);
            }
        }
}

template <class Operands, class Element, bool kDropout>
void forward_task(const AttentionArguments& a, const Task& task) {
    using Unit = typename Operands::Unit;
    const int64_t length = task.keys.length, queries = task.queries.length, out_step = a.heads * a.width;
    const Shape shape(length, queries, a.width);
    const Operand<const Element> in(a, task, a.q, a.kv);
    Element* out = static_cast<Element*>(a.out) + task.queries.first * out_step + task.head * a.width;
    Parts parts;
    Unit* space = parts.take<Unit>(shape.panel());
    Unit* keys = parts.take<Unit>(shape.key_panel());
    Unit* values = parts.take<Unit>(shape.key_panel());
    float* scores = parts.take<float>(shape.block());
    Unit* operand = parts.take<Unit>(shape.block());
    uint16_t* lanes = parts.take<uint16_t>(shape.block());
    float* result = parts.take<float>(kBlock * shape.width);

    Operands::pack_columns(in.k, in.kv_step, keys, shape.keys, length, a.width, space);
    Operands::pack_rows(in.v, in.kv_step, values, shape.width, length, a.width);
    if (Operands::kPacksLeft) Operands::pack_rows(in.q, in.q_step, space, a.width, queries, a.width);
    const Left<Unit> left = Operands::left(in.q, in.q_step, space, a.width);
    for (int64_t first = 0; first < queries; first += kBlock) {
        const int64_t rows = queries - first < kBlock ? queries - first : kBlock;
        const int64_t seen = task.seen_by(first + rows - 1), columns = round_up(seen, 16);
        product<Operands>(left.from_row(first), keys, shape.keys, scores, shape.keys, rows, columns,
                          a.width / Operands::kDepth, false);
        if (kDropout) draw_lanes(task, first, rows, seen, lanes, shape.keys);
        float factor[kBlock];
        for (int64_t r = 0; r < rows; ++r) {
            float* row = scores + r * shape.keys;
            const int64_t own = task.seen_by(first + r);
            const SoftmaxRow softmax = softmax_row<kDropout>(row, int(own), a.scale, lanes + r * shape.keys,
                                                            int(a.threshold));
            clear_unseen(row, own, columns);
            factor[r] = (kDropout ? a.keep_scale : 1.0f) / softmax.sum;
            a.lse[(task.queries.first + first + r) * a.heads + task.head] = softmax.maximum + logf(softmax.sum);
        }
        product<Operands>(Operands::left_scores(scores, shape.keys, rows, operand), values, shape.width, result,
                          shape.width, rows, shape.width, (seen + Operands::kDepth - 1) / Operands::kDepth, false);
        for (int64_t r = 0; r < rows; ++r)
            store_row(result + r * shape.width, factor[r], out + (first + r) * out_step, a.width);
    }
}

template <class Operands, class Element, bool kDropout>
void backward_task(const AttentionArguments& a, const Task& task) {
    using Unit = typename Operands::Unit;
    const int64_t length = task.keys.length, queries = task.queries.length, out_step = a.heads * a.width;
    const Shape shape(length, queries, a.width);
    const Operand<const Element> in(a, task, a.q, a.kv);
    const Operand<Element> result_of(a, task, a.grad_q, a.grad_kv);
    const Element* grad = static_cast<const Element*>(a.grad) + task.queries.first * out_step + task.head * a.width;
    Parts parts;
    Unit* space = parts.take<Unit>(shape.panel());
    Unit* key_columns = parts.take<Unit>(shape.key_panel());
    Unit* value_columns = parts.take<Unit>(shape.key_panel());
    Unit* key_rows = parts.take<Unit>(shape.key_panel());
    Unit* query_rows = parts.take<Unit>(shape.query_panel());
    Unit* grad_rows = parts.take<Unit>(shape.query_panel());
    float* grad_keys = parts.take<float>(shape.key_panel());
    float* grad_values = parts.take<float>(shape.key_panel());
    if (task.causal) {  // early blocks add nothing to late keys
        memset(grad_keys, 0, size_t(shape.key_panel()) * sizeof(float));
        memset(grad_values, 0, size_t(shape.key_panel()) * sizeof(float));
    }
    float* scores = parts.take<float>(shape.block());
    float* grad_scores = parts.take<float>(shape.block());
    Unit* operand = parts.take<Unit>(shape.block());
    uint16_t* lanes = parts.take<uint16_t>(shape.block());
    float* result = parts.take<float>(kBlock * shape.width);

    Operands::pack_columns(in.k, in.kv_step, key_columns, shape.keys, length, a.width, space);
    Operands::pack_columns(in.v, in.kv_step, value_columns, shape.keys, length, a.width, space);
    Operands::pack_rows(in.k, in.kv_step, key_rows, shape.width, length, a.width);
    Operands::pack_rows(in.q, in.q_step, query_rows, shape.width, queries, a.width);
    Operands::pack_rows(grad, out_step, grad_rows, shape.width, queries, a.width);
    const Left<Unit> left = Operands::left(in.q, in.q_step, query_rows, shape.width);
    const Left<Unit> grads = Operands::left(grad, out_step, grad_rows, shape.width);
    for (int64_t first = 0; first < queries; first += kBlock) {
        const int64_t rows = queries - first < kBlock ? queries - first : kBlock;
        const int64_t seen = task.seen_by(first + rows - 1), columns = round_up(seen, 16);
        const int64_t depth = (rows + Operands::kDepth - 1) / Operands::kDepth;
        const int64_t panel_row = first / Operands::kDepth * shape.width;
        product<Operands>(left.from_row(first), key_columns, shape.keys, scores, shape.keys, rows, columns,
                          a.width / Operands::kDepth, false);
        product<Operands>(grads.from_row(first), value_columns, shape.keys, grad_scores, shape.keys, rows, columns,
                          a.width / Operands::kDepth, false);
        if (kDropout) draw_lanes(task, first, rows, seen, lanes, shape.keys);
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t row = r * shape.keys, own = task.seen_by(first + r);
            softmax_backward_row<kDropout>(scores + row, grad_scores + row, int(own), a.scale,
                                           a.lse[(task.queries.first + first + r) * a.heads + task.head], lanes + row,
                                           int(a.threshold), a.keep_scale);
            clear_unseen(scores + row, own, columns), clear_unseen(grad_scores + row, own, columns);
        }
        product<Operands>(Operands::left_scores_transposed(scores, shape.keys, rows, operand), grad_rows + panel_row,
                          shape.width, grad_values, shape.width, seen, shape.width, depth, task.causal || first > 0);
        product<Operands>(Operands::left_scores_transposed(grad_scores, shape.keys, rows, operand),
                          query_rows + panel_row, shape.width, grad_keys, shape.width, seen, shape.width, depth,
                          task.causal || first > 0);
        product<Operands>(Operands::left_scores(grad_scores, shape.keys, rows, operand), key_rows, shape.width, result,
                          shape.width, rows, shape.width, (seen + Operands::kDepth - 1) / Operands::kDepth, false);
        for (int64_t r = 0; r < rows; ++r)
            store_row(result + r * shape.width, 1.0f, result_of.q + (first + r) * result_of.q_step, a.width);
    }
    for (int64_t r = 0; r < length; ++r) {
        store_row(grad_keys + r * shape.width, 1.0f, result_of.k + r * result_of.kv_step, a.width);
        store_row(grad_values + r * shape.width, 1.0f, result_of.v + r * result_of.kv_step, a.width);
    }
}

using TaskFunction = void (*)(const AttentionArguments&, const Task&);

template <class Operands, class Element>
TaskFunction choose(bool backward, bool dropout) {
    if (backward) return dropout ? backward_task<Operands, Element, true> : backward_task<Operands, Element, false>;
    return dropout ? forward_task<Operands, Element, true> : forward_task<Operands, Element, false>;
}

TaskFunction choose(const AttentionArguments& a, bool backward) {
    if (a.type == Type::float32) return choose<Single<float>, float>(backward, a.threshold > 0);
#if defined(__AVX512F__)
    if (__builtin_cpu_supports("avx512bf16")) return choose<Pairs, BFloat16>(backward, a.threshold > 0);
#endif
    return choose<Single<BFloat16>, BFloat16>(backward, a.threshold > 0);
}

struct Sequence {
    int64_t scores;
    int32_t sample;
};

int by_falling_scores(const void* left, const void* right) {
    const Sequence *l = static_cast<const Sequence*>(left), *r = static_cast<const Sequence*>(right);
    if (l->scores != r->scores) return l->scores < r->scores ? 1 : -1;
    return l->sample < r->sample ? -1 : 1;
}

SequenceRows queries_of_task(const AttentionArguments& a, int64_t sample, const SequenceRows& keys) {
    return a.query_offsets ? queries_of(a, sample, keys) : keys;
}

// The most rows that any sequence has.
struct Longest {
    int64_t keys = 0, queries = 0;
};

// Fills `sequences`, most scores first, after checking offsets and lengths.
int list_sequences(const AttentionArguments& a, Sequence* sequences, Longest& longest) {
    if (a.offsets[0] != 0 || a.offsets[a.samples] > a.rows) return kBadOffsets;
    if (a.query_offsets && (a.query_offsets[0] != 0 || a.query_offsets[a.samples] > a.queries)) return kBadOffsets;
    for (int64_t b = 0; b < a.samples; ++b) {
        if (a.offsets[b + 1] < a.offsets[b] || (a.lengths && a.lengths[b] < 0)) return kBadOffsets;
        if (a.query_offsets && a.query_offsets[b + 1] < a.query_offsets[b]) return kBadOffsets;
        const SequenceRows keys = keys_of(a, b), queries = queries_of_task(a, b, keys);
        if (keys.unused < 0) return kBadOffsets;
        if (keys.length >= 1 << 16 || queries.length >= 1 << 16) return kUnsupported;
        longest.keys = keys.length > longest.keys ? keys.length : longest.keys;
        longest.queries = queries.length > longest.queries ? queries.length : longest.queries;
        sequences[b] = {int64_t(keys.length) * queries.length, int32_t(b)};
    }
    qsort(sequences, size_t(a.samples), sizeof(Sequence), by_falling_scores);
    return kSuccess;
}

void clear_rows(void* rows, int64_t step, int64_t width, int64_t first, int64_t count, Type type) {
    const int64_t element = type == Type::float32 ? 4 : 2;
    char* at = static_cast<char*>(rows) + first * step * element;
    if (step == width) clear(at, count * width * element);
    else
        for (int64_t r = 0; r < count; ++r) memset(at + r * step * element, 0, size_t(width * element));
}

// Rows of no sequence are zero, and so is their `lse`; so are gradients of keys that nothing asks.
void clear_unused(const AttentionArguments& a, int64_t sample, bool backward) {
    SequenceRows keys = keys_of(a, sample);
    const SequenceRows queries = queries_of_task(a, sample, keys);
    const int64_t width = a.heads * a.width, first = queries.first + queries.length;
    if (!backward) {
        clear_rows(a.out, width, width, first, queries.unused, a.type);
        clear(a.lse + first * a.heads, queries.unused * a.heads * 4);
        return;
    }
    if (queries.length == 0) keys = {keys.first, 0, keys.length + keys.unused};
    clear_rows(a.grad_q, a.q_step, width, first, queries.unused, a.type);
    clear_rows(a.grad_kv, a.kv_step, 2 * width, keys.first + keys.length, keys.unused, a.type);
}

int run(const AttentionArguments& a, bool backward) {
    if (a.type != Type::float32 && a.type != Type::bfloat16) return kUnsupported;
    const uintptr_t addresses = uintptr_t(a.q) | uintptr_t(a.kv) | uintptr_t(a.grad) | uintptr_t(a.out) |
        uintptr_t(a.grad_q) | uintptr_t(a.grad_kv);
    if (addresses & 3) return kMisaligned;
    if (!order.reserve((a.samples + 1) * int64_t(sizeof(Sequence)))) return kOutOfMemory;
    Sequence* const sequences = reinterpret_cast<Sequence*>(order.data);
    Longest longest;
    if (const int status = list_sequences(a, sequences, longest)) return status;
    const TaskFunction function = choose(a, backward);
    const int64_t bytes = scratch_bytes(longest.keys, longest.queries, a.width, backward);
    const Key key = a.threshold ? stream_key(a.rng, kAttentionDropout, a.site) : Key{0, 0};
    int status = kSuccess;
#pragma omp parallel
    {
        if (!scratch.reserve(bytes)) {
#pragma omp atomic write
            status = kOutOfMemory;
        }
#pragma omp for
        for (int64_t b = 0; b <= a.samples; ++b) clear_unused(a, b, backward);  // waits for all threads' memory
        if (status == kSuccess) {
#pragma omp for schedule(dynamic)
            for (int64_t t = 0; t < a.samples * a.heads; ++t) {
                const Sequence sequence = sequences[t / a.heads];
                if (sequence.scores == 0) continue;
                const int64_t sample_key = a.threshold ? a.sample_keys[sequence.sample] : 0;
                const SequenceRows keys = keys_of(a, sequence.sample);
                function(a, {keys, queries_of_task(a, sequence.sample, keys), a.causal, t % a.heads, key, sample_key});
            }
        }
    }
    return status;
}

}  // namespace

int attention_forward(const AttentionArguments& a) { return run(a, false); }
int attention_backward(const AttentionArguments& a) { return run(a, true); }

}  // namespace memofast::MEMOFAST_VARIANT
