// Attention over the rows of a grid on a CPU: a thread has 64 latents, whose queries, sums and scores of one line
// of the grid (all widths at one time and height) stay in its cache. The lanes of a vector are latents, so that
// what belongs to a row is one number, and sums over rows need no shuffling.
#include "rows/separable_attention.h"

#include <math.h>
#include <string.h>

#include "cpu/scratch.h"
#include "rows/lanes.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kBlock = kSeparableLatents, kVectors = kBlock / kLanes;
constexpr uint32_t kAttentionDropout = 2;  // Purpose.ATTENTION_DROPOUT

using Arguments = SeparableAttentionArguments;

struct LatentLanes {
    using V = Floats;
};

// Rows of kBlock latents: where the columns of a query lie in a panel [columns, kBlock].
struct Panel {
    float *pixels, *slope, *times, *heights, *widths;
    Panel(float* data, const Arguments& a) : pixels(data) {
        slope = pixels + a.pixel_width * kBlock;
        times = slope + kBlock;
        heights = times + a.times * kBlock;
        widths = heights + a.heights * kBlock;
    }
};

int64_t panel_floats(const Arguments& a) { return int64_t(a.columns()) * kBlock; }

MEMOFAST_FUNCTION Floats& lane(float* row, int v) { return floats(row + v * kLanes); }

// to [columns, kBlock] = rows [count, columns] transposed; lanes past count are zero.
void pack(const float* rows, int64_t columns, int count, float* to) {
    for (int64_t c = 0; c < columns; ++c)
        for (int l = 0; l < kBlock; ++l) to[c * kBlock + l] = l < count ? rows[l * columns + c] : 0.0f;
}

// Which of a block's latents keep a row: eight rows are drawn at a time.
class Draws {
public:
    Draws(const Arguments& a, int64_t first) : threshold_(int(a.threshold)), first_(first) {
        if (a.threshold) key_ = stream_key(a.rng, kAttentionDropout, a.site);
    }
    void begin_sample(int64_t sample_key) { sample_key_ = sample_key, drawn_ = -1; }
    void go_to(int64_t row) {
        lane_ = int(row % 8);
        if (row / 8 == drawn_) return;
        drawn_ = row / 8;
        for (int l = 0; l < kBlock; l += kWideElements) {
            const Wide positions = counting_wide() + uint64_t(first_ + l);
            Wide words[4];
            draw(key_, sample_key_, positions, uint32_t(drawn_), words);
            for (int w = 0; w < 4; ++w)
                for (int i = 0; i < kWideElements; ++i) words_[w][l + i] = uint32_t(words[w][i]);
        }
    }
    // All bits where the row is kept.
    Ints kept(int v) const {
        Units words;
        memcpy(&words, words_[lane_ / 2] + v * kLanes, sizeof words);
        return (Ints)((words >> (16 * (lane_ % 2))) & 0xFFFFu) >= threshold_;
    }

private:
    Key key_{0, 0};
    int threshold_, lane_ = 0;
    int64_t first_, sample_key_ = 0, drawn_ = -1;
    alignas(64) uint32_t words_[4][kBlock];
};

// The pixels of a line as floats, where they lie or in `space`.
const float* line_of(const float* pixels, int64_t, float*) { return pixels; }
const float* line_of(const BFloat16* pixels, int64_t count, float* space) {
    MEMOFAST_SIMD for (int64_t i = 0; i < count; ++i) space[i] = to_float(pixels[i]);
    return space;
}

// sums [pixel_width, kBlock] += line^T weights; added to a product of its own, as a long sum loses what is small.
void add_product(const Arguments& a, const float* line, const float* weights, float* space, float* sums) {
    product<FloatArithmetic>({line, 1, a.pixel_width}, weights, kBlock, space, kBlock, a.pixel_width, kBlock, a.widths,
                             false);
    for (int64_t i = 0; i < int64_t(a.pixel_width) * kBlock; i += kLanes) floats(sums + i) += floats(space + i);
}

struct ForwardBlock {
    const Arguments& a;
    float *query_panel, *sums_panel, *scores, *space, *line;
    alignas(64) float most[kBlock], total[kBlock], kept[kBlock];

    static int64_t floats_needed(const Arguments& a) {
        return 2 * panel_floats(a) + int64_t(a.widths) * (kBlock + a.pixel_width) + int64_t(a.pixel_width) * kBlock +
            128;
    }

    ForwardBlock(const Arguments& arguments, Scratch& scratch) : a(arguments) {
        query_panel = scratch.take(panel_floats(a));
        sums_panel = scratch.take(panel_floats(a));
        scores = scratch.take(int64_t(a.widths) * kBlock);
        space = scratch.take(int64_t(a.pixel_width) * kBlock);
        line = scratch.take(int64_t(a.widths) * a.pixel_width);
    }

    // Scores of a line, and the largest of each latent so far; what was gathered is brought into its units.
    void score_line(const Panel& q, int t, int h, const float* shift, const float* scale) {
        Floats larger[kVectors];
        bool grown = false;
        for (int v = 0; v < kVectors; ++v) {
            const Floats place = lane(q.times + t * kBlock, v) + lane(q.heights + h * kBlock, v);
            const Floats slope = lane(q.slope, v);
            Floats top = lane(most, v);
            for (int w = 0; w < a.widths; ++w) {
                Floats& score = lane(scores + w * kBlock, v);
                score = unscaled(score, place + lane(q.widths + w * kBlock, v), slope, shift[w]) * scale[w];
                top = score > top ? score : top;
            }
            larger[v] = top;
            for (int i = 0; i < kLanes; ++i) grown |= top[i] > lane(most, v)[i];
        }
        if (!grown) return;
        for (int v = 0; v < kVectors; ++v) {
            const Floats factor = exponential(lane(most, v) - larger[v]);
            lane(most, v) = larger[v];
            lane(total, v) *= factor;
            lane(kept, v) *= factor;
            for (int c = 0; c < a.columns(); ++c) lane(sums_panel + c * kBlock, v) *= factor;
        }
    }

    // Scores become the weights of what the rows hold.
    template <bool kDropout>
    void weigh_line(const Panel& sums, Draws& draws, int t, int h, const float* shift, const float* scale) {
        SeparableSums<LatentLanes> own[kVectors] = {};
        Floats weights[kVectors] = {};
        for (int w = 0; w < a.widths; ++w) {
            if (kDropout) draws.go_to((int64_t(t) * a.heights + h) * a.widths + w);
            for (int v = 0; v < kVectors; ++v) {
                Floats& score = lane(scores + w * kBlock, v);
                const Floats e = exponential(score - lane(most, v));
                score = add_row(own[v], e, kDropout ? (draws.kept(v) ? e : Floats{}) : e, shift[w], scale[w]);
                weights[v] += score;
                lane(sums.widths + w * kBlock, v) += score;
            }
        }
        for (int v = 0; v < kVectors; ++v) {
            lane(total, v) += own[v].total;
            lane(kept, v) += own[v].kept;
            lane(sums.slope, v) += own[v].shifted;
            lane(sums.times + t * kBlock, v) += weights[v];
            lane(sums.heights + h * kBlock, v) += weights[v];
        }
    }

    template <class T, bool kDropout>
    void run(int64_t sample, int64_t first, int count) {
        const Panel q(query_panel, a), sums(sums_panel, a);
        pack(a.queries + first * a.columns(), a.columns(), count, query_panel);
        memset(sums_panel, 0, size_t(panel_floats(a)) * 4);
        for (int l = 0; l < kBlock; ++l) most[l] = -INFINITY, total[l] = kept[l] = 0.0f;
        Draws draws(a, first);
        if (kDropout) draws.begin_sample(a.sample_keys[sample]);
        const T* pixels = static_cast<const T*>(a.pixels) + sample * a.rows() * a.pixel_width;
        const float *shift = a.shift + sample * a.rows(), *scale = a.scale + sample * a.rows();
        for (int t = 0; t < a.times; ++t)
            for (int h = 0; h < a.heights; ++h, shift += a.widths, scale += a.widths) {
                const float* x = line_of(pixels, int64_t(a.widths) * a.pixel_width, line);
                product<FloatArithmetic>({x, a.pixel_width, 1}, q.pixels, kBlock, scores, kBlock, a.widths, kBlock,
                                         a.pixel_width, false);
                score_line(q, t, h, shift, scale);
                weigh_line<kDropout>(sums, draws, t, h, shift, scale);
                add_product(a, x, scores, space, sums.pixels);
                pixels += int64_t(a.widths) * a.pixel_width;
            }
        const int64_t at = sample * a.latents + first;
        for (int l = 0; l < count; ++l) {
            const float share = (a.threshold ? a.keep_scale : 1.0f) / total[l];
            for (int c = 0; c < a.columns(); ++c)
                a.gathered[(at + l) * a.columns() + c] = sums_panel[c * kBlock + l] * share;
            a.mass[at + l] = kept[l] * share;
            a.lse[at + l] = most[l] + logf(total[l]);
        }
    }
};

struct BackwardBlock {
    const Arguments& a;
    float *query_panel, *grad_panel, *sums_panel, *scores, *gathered, *space, *line;
    alignas(64) float lse[kBlock], delta[kBlock], grad_mass[kBlock];

    static int64_t floats_needed(const Arguments& a) {
        return 3 * panel_floats(a) + int64_t(a.widths) * (2 * kBlock + a.pixel_width) +
            int64_t(a.pixel_width) * kBlock + 160;
    }

    BackwardBlock(const Arguments& arguments, Scratch& scratch) : a(arguments) {
        query_panel = scratch.take(panel_floats(a));
        grad_panel = scratch.take(panel_floats(a));
        sums_panel = scratch.take(panel_floats(a));
        scores = scratch.take(int64_t(a.widths) * kBlock);
        gathered = scratch.take(int64_t(a.widths) * kBlock);
        space = scratch.take(int64_t(a.pixel_width) * kBlock);
        line = scratch.take(int64_t(a.widths) * a.pixel_width);
    }

    void begin(int64_t sample, int64_t first, int count) {
        const int64_t at = sample * a.latents + first, columns = a.columns();
        pack(a.queries + first * columns, columns, count, query_panel);
        pack(a.grad_gathered + at * columns, columns, count, grad_panel);
        memset(sums_panel, 0, size_t(panel_floats(a)) * 4);
        for (int l = 0; l < kBlock; ++l) lse[l] = delta[l] = grad_mass[l] = 0.0f;
        for (int l = 0; l < count; ++l) {
            const float *grad = a.grad_gathered + (at + l) * columns, *value = a.gathered + (at + l) * columns;
            float along = 0.0f;
            MEMOFAST_SIMD_SUM(along) for (int64_t c = 0; c < columns; ++c) along += grad[c] * value[c];
            lse[l] = a.lse[at + l];
            grad_mass[l] = a.grad_mass[at + l];
            delta[l] = along + grad_mass[l] * a.mass[at + l] - a.grad_lse[at + l];
        }
    }

    // Scores become the gradients of the unscaled scores; of_shift and of_scale get this block's share of the row's.
    template <bool kDropout>
    void grad_line(Draws& draws, int t, int h, const float* shift, const float* scale, float* of_shift,
                   float* of_scale) {
        const Panel q(query_panel, a), g(grad_panel, a), sums(sums_panel, a);
        const float keep_scale = kDropout ? a.keep_scale : 1.0f;
        Floats grads[kVectors] = {}, shifted[kVectors] = {};
        for (int w = 0; w < a.widths; ++w) {
            if (kDropout) draws.go_to((int64_t(t) * a.heights + h) * a.widths + w);
            Floats row_shift = {}, row_scale = {};
            for (int v = 0; v < kVectors; ++v) {
                const Floats slope = lane(q.slope, v), grad_slope = lane(g.slope, v);
                const Floats at_q = lane(q.times + t * kBlock, v) + lane(q.heights + h * kBlock, v) +
                    lane(q.widths + w * kBlock, v);
                const Floats at_g = lane(g.times + t * kBlock, v) + lane(g.heights + h * kBlock, v) +
                    lane(g.widths + w * kBlock, v);
                Floats& score = lane(scores + w * kBlock, v);
                const Floats raw = unscaled(score, at_q, slope, shift[w]);
                const Floats along = unscaled(lane(gathered + w * kBlock, v), at_g, grad_slope, shift[w]);
                const Floats factor =
                    kDropout ? (draws.kept(v) ? Floats{} + keep_scale : Floats{}) : Floats{} + 1.0f;
                const SeparableGradients<LatentLanes> latent{slope, grad_slope, lane(grad_mass, v), lane(delta, v)};
                const Floats probability = exponential(raw * scale[w] - lane(lse, v));
                const auto row = row_gradients(latent, probability, raw, along, factor, scale[w]);
                score = row.raw;
                grads[v] += row.raw;
                shifted[v] += row.raw * shift[w];
                row_shift += row.of_shift;
                row_scale += row.of_scale;
                lane(sums.widths + w * kBlock, v) += row.raw;
            }
            of_shift[w] = sum(row_shift);
            of_scale[w] = sum(row_scale);
        }
        for (int v = 0; v < kVectors; ++v) {
            lane(sums.slope, v) += shifted[v];
            lane(sums.times + t * kBlock, v) += grads[v];
            lane(sums.heights + h * kBlock, v) += grads[v];
        }
    }

    // Adds to grad_queries, which are zero before the first sample; `shares` [2, rows] gets the rows' gradients.
    template <class T, bool kDropout>
    void run(int64_t sample, int64_t first, int count, float* shares) {
        begin(sample, first, count);
        const Panel q(query_panel, a), g(grad_panel, a), sums(sums_panel, a);
        Draws draws(a, first);
        if (kDropout) draws.begin_sample(a.sample_keys[sample]);
        const T* pixels = static_cast<const T*>(a.pixels) + sample * a.rows() * a.pixel_width;
        const float *shift = a.shift + sample * a.rows(), *scale = a.scale + sample * a.rows();
        for (int t = 0; t < a.times; ++t)
            for (int h = 0; h < a.heights; ++h) {
                const float* x = line_of(pixels, int64_t(a.widths) * a.pixel_width, line);
                const Left<float> rows{x, a.pixel_width, 1};
                product<FloatArithmetic>(rows, q.pixels, kBlock, scores, kBlock, a.widths, kBlock, a.pixel_width,
                                         false);
                product<FloatArithmetic>(rows, g.pixels, kBlock, gathered, kBlock, a.widths, kBlock, a.pixel_width,
                                         false);
                grad_line<kDropout>(draws, t, h, shift, scale, shares, shares + a.rows());
                add_product(a, x, scores, space, sums.pixels);
                pixels += int64_t(a.widths) * a.pixel_width;
                shift += a.widths, scale += a.widths, shares += a.widths;
            }
        for (int l = 0; l < count; ++l)
            for (int c = 0; c < a.columns(); ++c)
                a.grad_queries[(first + l) * a.columns() + c] += sums_panel[c * kBlock + l];
    }
};

int latents_of(const Arguments& a, int64_t block) {
    const int64_t left = a.latents - block * kBlock;
    return int(left < kBlock ? left : kBlock);
}

template <class T, bool kDropout>
int forward(const Arguments& a) {
    const int64_t blocks = separable_blocks(a);
    int status = kSuccess;
#pragma omp parallel
    {
        Scratch scratch(ForwardBlock::floats_needed(a));
        if (!scratch.data) {
#pragma omp atomic write
            status = kOutOfMemory;
        } else {
            ForwardBlock block(a, scratch);
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < a.samples * blocks; ++task)
                block.run<T, kDropout>(task / blocks, task % blocks * kBlock, latents_of(a, task % blocks));
        }
    }
    return status;
}

// One sample after another: a block adds its samples to its own queries, and the blocks' shares of a row are added in
// their order, so that no sum depends on the number of threads.
template <class T, bool kDropout>
int backward(const Arguments& a) {
    const int64_t blocks = separable_blocks(a), rows = a.rows();
    memset(a.grad_queries, 0, size_t(a.latents * a.columns()) * 4);
    int status = kSuccess;
    for (int64_t sample = 0; sample < a.samples; ++sample) {
#pragma omp parallel
        {
            Scratch scratch(BackwardBlock::floats_needed(a));
            if (!scratch.data) {
#pragma omp atomic write
                status = kOutOfMemory;
            } else {
                BackwardBlock block(a, scratch);
#pragma omp for schedule(dynamic, 1)
                for (int64_t b = 0; b < blocks; ++b)
                    block.run<T, kDropout>(sample, b * kBlock, latents_of(a, b), a.workspace + b * 2 * rows);
            }
        }
        if (status) return status;
        float* sums[2] = {a.grad_shift + sample * rows, a.grad_scale + sample * rows};
        for (int kind = 0; kind < 2; ++kind) {
            memset(sums[kind], 0, size_t(rows) * 4);
            for (int64_t b = 0; b < blocks; ++b) {
                const float* share = a.workspace + (b * 2 + kind) * rows;
                MEMOFAST_SIMD for (int64_t n = 0; n < rows; ++n) sums[kind][n] += share[n];
            }
        }
    }
    return kSuccess;
}

template <class T>
int run_typed(const Arguments& a, bool back) {
    if (a.threshold) return back ? backward<T, true>(a) : forward<T, true>(a);
    return back ? backward<T, false>(a) : forward<T, false>(a);
}

int run(const Arguments& a, bool back) {
    if (a.type == Type::float32) return run_typed<float>(a, back);
    return a.type == Type::bfloat16 ? run_typed<BFloat16>(a, back) : int(kUnsupported);
}

}  // namespace

int separable_attention(const Arguments& a) { return run(a, false); }
int separable_attention_backward(const Arguments& a) { return run(a, true); }

}  // namespace memofast::MEMOFAST_VARIANT
