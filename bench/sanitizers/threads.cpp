// Several threads gather records, take and give memory, mask, and run kernels of the CPU, each with threads of its own,
// from the same inputs into their own outputs; all must write the same. Built with the thread sanitizer by
// bench/sanitized.py.
#define MEMOFAST_VARIANT host

#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "attention.h"
#include "bias_gelu.h"
#include "dropout_add_norm.h"
#include "embed.h"
#include "host/batch_memory.h"
#include "host/gather.h"
#include "separable_attention.h"
#include "span_mask.h"
#include "token_mask.h"

using namespace memofast;

namespace {

constexpr int kSamples = 67, kLength = 9, kRows = kSamples * kLength + 5, kHeads = 2, kHeadWidth = 8;
constexpr int kWidth = kHeads * kHeadWidth, kWords = 50;

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

Floats numbers(int64_t count, uint32_t seed) {
    Floats values(size_t(count), 0.0f);
    for (float& value : values) seed = seed * 1664525u + 1013904223u, value = float(int32_t(seed)) * 0x1p-31f;
    return values;
}

// What all threads read.
struct Inputs {
    Ints offsets, tokens, words;
    std::vector<int64_t> keys, rng{7, 3}, order;
    Floats x = numbers(kRows * kWidth, 1), qkv = numbers(3 * kRows * kWidth, 2), vector = numbers(kWidth, 3);
    Floats table = numbers(kWords * kWidth, 4), types = numbers(3 * kWidth, 5);
    std::vector<std::vector<uint8_t>> records;

    Inputs() {
        for (int sample = 0; sample <= kSamples; ++sample) offsets.push_back(sample * kLength);
        for (int sample = 0; sample < kSamples; ++sample) keys.push_back(sample * 1000003ll - 5);
        for (int row = 0; row < kRows; ++row) {
            tokens.push_back(row % kWords), words.push_back(row % kLength ? row % kLength / 2 : -1);
        }
        for (int id = 0; id < kWords; ++id)
            for (int row = id; row < kRows; row += kWords) order.push_back(row);
        for (int sample = 0; sample < kSamples; ++sample) records.push_back(record(sample));
    }

    // A header, one column of kLength rows of kWidth floats, and the rows.
    std::vector<uint8_t> record(int sample) const {
        const uint32_t bytes = kLength * kWidth * 4, size = 32 + bytes;
        const uint16_t column[2] = {1, 0}, header[2] = {1, 1};
        const uint32_t magic = 0x5243464Du, rest[2] = {kLength, size}, place[3] = {kWidth, 32, bytes};
        std::vector<uint8_t> data(size);
        std::memcpy(&data[0], &magic, 4), std::memcpy(&data[4], header, 4), std::memcpy(&data[8], rest, 8);
        std::memcpy(&data[16], column, 4), std::memcpy(&data[20], place, 12);
        std::memcpy(&data[32], x.data() + sample * kLength * kWidth, bytes);
        return data;
    }
};

void add(Floats& all, const float* values, int64_t count) { all.insert(all.end(), values, values + count); }
void add(Floats& all, const Ints& values) { all.insert(all.end(), values.begin(), values.end()); }

void gather(const Inputs& in, Floats& all) {
    std::vector<const uint8_t*> records;
    std::vector<int64_t> sizes, rows(kSamples, kLength), first;
    for (const auto& record : in.records) records.push_back(record.data()), sizes.push_back(int64_t(record.size()));
    for (int sample = 0; sample < kSamples; ++sample) first.push_back(sample * kLength);
    const BatchMemory memory = take_batch_memory(size_t(kRows * kWidth * 4));
    const GatherColumn column{1, kWidth, kWidth, RecordType::float32, memory.data};
    const int64_t bad = gather_records({records.data(), sizes.data(), rows.data(), first.data(), kSamples, &column, 1});
    all.push_back(float(bad));
    add(all, static_cast<float*>(memory.data), kSamples * kLength * kWidth);
    give_batch_memory_back(memory);
    all.push_back(idle_batch_memory() > 0);
}

MaskedBatch batch(const Inputs& in) {
    return {in.offsets.data(), in.keys.data(), in.rng.data(), nullptr, kSamples, kRows, 3, 5};
}

void mask(const Inputs& in, Floats& all) {
    Ints source(kRows), seen(kRows), labels(kRows), indices(kRows), count(2);
    const SpanMaskArguments spans{batch(in), {SpanKind::mixed, 1, 5, 3, true, false}, source.data()};
    all.push_back(float(MEMOFAST_DISPATCH(span_mask, spans)));
    const TargetList list{indices.data(), &count[0], &count[1], kRows, nullptr};
    const MaskedValues values{source.data(), kRows, true};
    all.push_back(float(MEMOFAST_DISPATCH(list_targets, values, list)));
    const TokenPolicy policy{TokenKind::whole_word, 3, 20, 1, 2, true, 103, 5, 40};
    const TokenMaskArguments tokens{
        batch(in), policy, in.tokens.data(), in.words.data(), nullptr, seen.data(), labels.data()};
    all.push_back(float(MEMOFAST_DISPATCH(token_mask, tokens)));
    for (const Ints& written : {source, indices, count, seen, labels}) add(all, written);
}

void attend(const Inputs& in, Floats& all) {
    Floats out(kRows * kWidth), lse(kRows * kHeads), grad(3 * kRows * kWidth);
    AttentionArguments a{};
    a.q = in.qkv.data(), a.kv = in.qkv.data() + kWidth, a.q_step = a.kv_step = 3 * kWidth;
    a.offsets = in.offsets.data(), a.rng = in.rng.data(), a.sample_keys = in.keys.data();
    a.rows = a.queries = kRows, a.samples = kSamples, a.heads = kHeads, a.width = kHeadWidth;
    a.site = 1, a.threshold = 6554, a.keep_scale = 1.1f, a.scale = 0.3f;
    a.out = out.data(), a.lse = lse.data();
    all.push_back(float(MEMOFAST_DISPATCH(attention_forward, a)));
    a.grad = in.x.data(), a.grad_q = grad.data(), a.grad_kv = grad.data() + kWidth;
    all.push_back(float(MEMOFAST_DISPATCH(attention_backward, a)));
    for (const Floats* written : {&out, &lse, &grad}) add(all, written->data(), int64_t(written->size()));
}

void normalise(const Inputs& in, Floats& all) {
    constexpr int kChunks = (kRows + 63) / 64;
    Floats out(kRows * kWidth), statistics(kRows * 2), grads(2 * kRows * kWidth), partials(3 * kChunks * kWidth),
        sums(3 * kWidth);
    DropoutAddNormArguments a{};
    a.x = a.residual = in.x.data(), a.gamma = a.beta = in.vector.data(), a.bias = in.vector.data();
    a.statistics = statistics.data(), a.rng = in.rng.data(), a.sample_keys = in.keys.data();
    a.offsets = in.offsets.data(), a.rows = kRows, a.width = kWidth, a.samples = kSamples;
    a.site = 2, a.threshold = 6554, a.scale = 1.1f, a.eps = 1e-12f, a.out = out.data();
    all.push_back(float(MEMOFAST_DISPATCH(dropout_add_norm, a)));
    a.grad = in.x.data(), a.grad_x = grads.data(), a.grad_residual = grads.data() + kRows * kWidth;
    a.partials = partials.data(), a.sums = sums.data();
    all.push_back(float(MEMOFAST_DISPATCH(dropout_add_norm_backward, a)));
    for (const Floats* written : {&out, &grads, &sums}) add(all, written->data(), int64_t(written->size()));
    BiasGeluArguments g{};
    g.x = in.x.data(), g.bias = in.vector.data(), g.rows = kRows, g.width = kWidth, g.out = out.data();
    all.push_back(float(MEMOFAST_DISPATCH(bias_gelu, g)));
    g.grad = in.x.data(), g.grad_x = grads.data(), g.partials = partials.data(), g.grad_bias = sums.data();
    all.push_back(float(MEMOFAST_DISPATCH(bias_gelu_backward, g)));
    for (const Floats* written : {&out, &grads, &sums}) add(all, written->data(), int64_t(written->size()));
}

void gather_grid(const Inputs& in, Floats& all) {
    constexpr int kLatents = 130, kGrid = 2 * 3 * 5, kPixels = 4, kColumns = kPixels + 1 + 2 + 3 + 5;
    Floats gathered(kSamples * kLatents * kColumns), mass(kSamples * kLatents), lse(kSamples * kLatents),
        queries(kLatents * kColumns), rows(2 * kSamples * kGrid), room(3 * 2 * kGrid);
    SeparableAttentionArguments a{};
    a.queries = a.shift = a.scale = in.x.data(), a.pixels = in.x.data(), a.rng = in.rng.data();
    a.sample_keys = in.keys.data(), a.samples = kSamples, a.latents = kLatents, a.pixel_width = kPixels;
    a.times = 2, a.heights = 3, a.widths = 5, a.site = 4, a.threshold = 6554, a.keep_scale = 1.1f;
    a.gathered = gathered.data(), a.mass = mass.data(), a.lse = lse.data();
    all.push_back(float(MEMOFAST_DISPATCH(separable_attention, a)));
    a.grad_gathered = gathered.data(), a.grad_mass = mass.data(), a.grad_lse = lse.data();
    a.grad_queries = queries.data(), a.grad_shift = rows.data(), a.grad_scale = rows.data() + kSamples * kGrid;
    a.workspace = room.data();
    all.push_back(float(MEMOFAST_DISPATCH(separable_attention_backward, a)));
    for (const Floats* written : {&gathered, &mass, &lse, &queries, &rows})
        add(all, written->data(), int64_t(written->size()));
}

void embed(const Inputs& in, Floats& all) {
    Floats out(kRows * kWidth), statistics(kRows * 4), words(kWords * kWidth), sums((kWords + 3 + 12) * kWidth);
    EmbedArguments a{};
    a.offsets = in.offsets.data(), a.rng = in.rng.data(), a.sample_keys = in.keys.data();
    a.out = out.data(), a.statistics = statistics.data(), a.rows = kRows, a.samples = kSamples, a.width = kWidth;
    a.site = 0, a.threshold = 6554, a.keep_scale = 1.1f, a.eps = 1e-12f;
    EmbedModality& text = a.modality[0];
    text.offsets = in.offsets.data(), text.index = in.tokens.data(), text.content = in.table.data();
    text.position = in.table.data(), text.type = in.types.data(), text.gamma = text.beta = in.vector.data();
    text.rows = kRows, text.contents = text.positions = kWords;
    all.push_back(float(MEMOFAST_DISPATCH(embed_forward, a)));
    a.grad = in.x.data(), text.grad_content = words.data(), text.order = in.order.data();
    float* next = sums.data();
    text.grad_position = next, next += kWords * kWidth;
    for (float** vector : {&text.grad_type, &text.grad_gamma, &text.grad_beta}) *vector = next, next += kWidth;
    all.push_back(float(MEMOFAST_DISPATCH(embed_backward, a)));
    for (const Floats* written : {&out, &words, &sums}) add(all, written->data(), int64_t(written->size()));
}

Floats everything(const Inputs& in) {
    Floats all;
    for (auto part : {gather, mask, attend, normalise, gather_grid, embed}) part(in, all);
    return all;
}

}  // namespace

int main() {
    constexpr int kThreads = 4, kRepeats = 3;
    const Inputs in;
    const Floats expected = everything(in);
    bool same = expected.size() > 10000;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
        std::vector<Floats> found(kThreads);
        std::vector<std::thread> threads;
        for (Floats& own : found) threads.emplace_back([&] { own = everything(in); });
        for (std::thread& thread : threads) thread.join();
        for (const Floats& own : found)
            same &= own.size() == expected.size() && !std::memcmp(own.data(), expected.data(), own.size() * 4);
    }
    const char* outcome = same ? "the same" : "NOT the same";
    std::printf("%zu numbers of each of %d threads: %s\n", expected.size(), kThreads, outcome);
    return same ? 0 : 1;
}
