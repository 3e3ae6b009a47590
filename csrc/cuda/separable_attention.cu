// Attention over the rows of a grid on a GPU. A block has 64 latents, one a thread, and one time of one sample; it
// walks the lines of the grid (all widths at one height), whose pixels lie in shared memory and are read by all its
// threads at once. A latent's pixels of query and sum lie in registers, its sums of places in shared memory.
// Forward, a second kernel joins the times of a latent in their order; backward, sums over blocks are partials
// added in order.
#include "rows/separable_attention.h"

#include <math.h>

#include "launch.cuh"
#include "row_warps.cuh"
#include "rows/lanes.h"

namespace memofast::cuda {
namespace {

constexpr int kBlock = kSeparableLatents, kMostPixels = 48, kGroup = 8;
constexpr uint32_t kAttentionDropout = 2;  // Purpose.ATTENTION_DROPOUT

using Arguments = SeparableAttentionArguments;

// [kBlock, columns] of a query or gradient by column; zero for threads past the last latent.
struct LatentRow {
    const float* values;  // or null
    __device__ float at(int column) const { return values ? values[column] : 0.0f; }
};

// The pixels of a line, padded with zeros to kMostPixels, its shift and scale.
struct Line {
    float *pixels, *shift, *scale;

    __device__ Line(float* shared, int widths)
        : pixels(shared), shift(shared + widths * kMostPixels), scale(shift + widths) {}
    static int floats(int widths) { return widths * (kMostPixels + 2); }

    template <class T>
    __device__ void read(const Arguments& a, int64_t first) {
        const T* from = static_cast<const T*>(a.pixels) + first * a.pixel_width;
        for (int i = threadIdx.x; i < a.widths * kMostPixels; i += kBlock) {
            const int row = i / kMostPixels, column = i % kMostPixels;
            pixels[i] = column < a.pixel_width ? to_float(from[row * a.pixel_width + column]) : 0.0f;
        }
        for (int w = threadIdx.x; w < a.widths; w += kBlock)
            shift[w] = a.shift[first + w], scale[w] = a.scale[first + w];
    }
    __device__ float dot(int w, const float* query) const {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < kMostPixels; ++i) sum += pixels[w * kMostPixels + i] * query[i];
        return sum;
    }
    __device__ void add(int w, float weight, float* sums) const {
#pragma unroll
        for (int i = 0; i < kMostPixels; ++i) sums[i] += weight * pixels[w * kMostPixels + i];
    }
};

__device__ __forceinline__ void read_pixels(const LatentRow& row, int width, float* values) {
#pragma unroll
    for (int i = 0; i < kMostPixels; ++i) values[i] = i < width ? row.at(i) : 0.0f;
}

// Whether dropout keeps a row for a latent; eight rows are drawn at a time.
struct Draws {
    Key key;
    int64_t sample_key, drawn;
    Words words;

    __device__ Draws(const Arguments& a, int64_t sample) : key{0, 0}, sample_key(0), drawn(-1), words{} {
        if (a.threshold) key = stream_key(a.rng, kAttentionDropout, a.site), sample_key = a.sample_keys[sample];
    }
    __device__ bool kept(const Arguments& a, int64_t row, int64_t latent) {
        if (!a.threshold) return true;
        if (row / 8 != drawn) drawn = row / 8, words = draw(key, sample_key, uint32_t(latent), uint32_t(drawn));
        // chosen without an index, for which the words would leave their registers
        const int pair = int(row % 8) / 2;
        const uint32_t low = pair ? words.word[1] : words.word[0], high = pair == 2 ? words.word[2] : words.word[3];
        return (((pair < 2 ? low : high) >> (16 * (row % 2))) & 0xFFFFu) >= a.threshold;
    }
};

// What one block leaves of a latent: maximum, total, kept, shifted, weight, then its pixels, heights and widths.
__device__ __host__ int part_floats(const Arguments& a) { return 5 + a.pixel_width + a.heights + a.widths; }

template <class T>
__global__ void forward_kernel(const Arguments a) {
    float* shared = shared_memory<float>();
    const int thread = threadIdx.x, t = blockIdx.y;
    const int64_t latent = int64_t(blockIdx.x) * kBlock + thread, sample = blockIdx.z;
    const bool there = latent < a.latents;
    float *heights = shared + thread, *widths = heights + a.heights * kBlock;  // [place, kBlock], a column a thread
    Line line(shared + (a.heights + a.widths) * kBlock, a.widths);
    const LatentRow row{there ? a.queries + latent * a.columns() : nullptr};
    const int times = a.pixel_width + 1, high = times + a.times, wide = high + a.heights;
    float query[kMostPixels], sums[kMostPixels] = {};
    read_pixels(row, a.pixel_width, query);
    const float slope = row.at(a.pixel_width), at_time = row.at(times + t);
    for (int i = 0; i < a.heights + a.widths; ++i) heights[i * kBlock] = 0.0f;
    SeparableSums<OneLatent> own = {};
    float most = -INFINITY, weight = 0.0f;
    Draws draws(a, sample);
    for (int h = 0; h < a.heights; ++h) {
        const int64_t in_sample = (int64_t(t) * a.heights + h) * a.widths;
        __syncthreads();
        line.read<T>(a, sample * a.rows() + in_sample);
        __syncthreads();
        const float place = at_time + row.at(high + h);
        float of_height = 0.0f;
        for (int first = 0; first < a.widths; first += kGroup) {
            float scores[kGroup], larger = most;
#pragma unroll
            for (int i = 0; i < kGroup; ++i) {
                const int w = first + i;
                if (w >= a.widths) break;
                const float raw = unscaled(line.dot(w, query), place + row.at(wide + w), slope, line.shift[w]);
                scores[i] = raw * line.scale[w];
                larger = scores[i] > larger ? scores[i] : larger;
            }
            if (larger > most) {
                const float factor = expf(most - larger);
                most = larger;
                own.total *= factor, own.kept *= factor, own.shifted *= factor;
                weight *= factor, of_height *= factor;
#pragma unroll
                for (int i = 0; i < kMostPixels; ++i) sums[i] *= factor;
                for (int i = 0; i < a.heights + a.widths; ++i) heights[i * kBlock] *= factor;
            }
#pragma unroll
            for (int i = 0; i < kGroup; ++i) {
                const int w = first + i;
                if (w >= a.widths) break;
                const float e = expf(scores[i] - most);
                const float kept = draws.kept(a, in_sample + w, latent) ? e : 0.0f;
                const float used = add_row(own, e, kept, line.shift[w], line.scale[w]);
                line.add(w, used, sums);
                of_height += used;
                widths[w * kBlock] += used;
            }
        }
        heights[h * kBlock] += of_height;
        weight += of_height;
    }
    if (!there) return;
    float* part = a.workspace + ((sample * a.latents + latent) * a.times + t) * part_floats(a);
    part[0] = most, part[1] = own.total, part[2] = own.kept, part[3] = own.shifted, part[4] = weight;
#pragma unroll
    for (int i = 0; i < kMostPixels; ++i)
        if (i < a.pixel_width) part[5 + i] = sums[i];
    for (int i = 0; i < a.heights + a.widths; ++i) part[5 + a.pixel_width + i] = heights[i * kBlock];
}

// A warp joins the times of one latent; its lanes have a column each.
__global__ void join_kernel(const Arguments a) {
    const int lane = threadIdx.x;
    const int64_t at = blockIdx.x;  // sample and latent
    const int floats = part_floats(a);
    const float* parts = a.workspace + at * a.times * floats;
    float most = -INFINITY, total = 0.0f, kept = 0.0f;
    for (int t = 0; t < a.times; ++t) most = parts[t * floats] > most ? parts[t * floats] : most;
    for (int t = 0; t < a.times; ++t) {
        const float factor = expf(parts[t * floats] - most);
        total += parts[t * floats + 1] * factor;
        kept += parts[t * floats + 2] * factor;
    }
    const float share = (a.threshold ? a.keep_scale : 1.0f) / total;
    float* out = a.gathered + at * a.columns();
    const int times = a.pixel_width + 1;
    for (int c = lane; c < a.columns(); c += blockDim.x) {
        float sum = 0.0f;
        if (c >= times && c < times + a.times) {
            const int t = c - times;
            sum = parts[t * floats + 4] * expf(parts[t * floats] - most);
        } else {
            const int from = c == a.pixel_width ? 3 : c < a.pixel_width ? 5 + c : 5 + c - 1 - a.times;
            for (int t = 0; t < a.times; ++t) sum += parts[t * floats + from] * expf(parts[t * floats] - most);
        }
        out[c] = sum * share;
    }
    if (lane == 0) a.mass[at] = kept * share, a.lse[at] = most + logf(total);
}

template <class T>
__global__ void backward_kernel(const Arguments a) {
    float* shared = shared_memory<float>();
    const int thread = threadIdx.x, t = blockIdx.y;
    const int64_t latent = int64_t(blockIdx.x) * kBlock + thread, sample = blockIdx.z;
    const bool there = latent < a.latents;
    float* widths = shared + thread;  // [width, kBlock]
    Line line(shared + a.widths * kBlock, a.widths);
    float* warp_sums = line.pixels + a.widths * (kMostPixels + 2);  // [kBlock / 32, 2, widths]
    const int64_t at = sample * a.latents + latent;
    const int columns = a.columns(), times = a.pixel_width + 1, high = times + a.times, wide = high + a.heights;
    const LatentRow row{there ? a.queries + latent * columns : nullptr},
        grad{there ? a.grad_gathered + at * columns : nullptr}, value{there ? a.gathered + at * columns : nullptr};
    float query[kMostPixels], grads[kMostPixels], sums[kMostPixels] = {};
    read_pixels(row, a.pixel_width, query);
    read_pixels(grad, a.pixel_width, grads);
    SeparableGradients<OneLatent> own{row.at(a.pixel_width), grad.at(a.pixel_width), 0.0f, 0.0f};
    float along = 0.0f, lse = 0.0f;
    for (int c = 0; c < columns; ++c) along += grad.at(c) * value.at(c);
    if (there) {
        own.grad_mass = a.grad_mass[at];
        own.delta = along + own.grad_mass * a.mass[at] - a.grad_lse[at];
        lse = a.lse[at];
    }
    float* out = a.workspace + a.samples * separable_blocks(a) * 2 * a.rows();  // [samples, times, latents, columns]
    out += ((sample * a.times + t) * a.latents + latent) * columns;
    float* shares = a.workspace + int64_t(blockIdx.x) * a.samples * 2 * a.rows();  // [blocks, 2, samples, rows]
    for (int w = 0; w < a.widths; ++w) widths[w * kBlock] = 0.0f;
    float shifted = 0.0f, of_time = 0.0f;
    Draws draws(a, sample);
    for (int h = 0; h < a.heights; ++h) {
        const int64_t in_sample = (int64_t(t) * a.heights + h) * a.widths;
        __syncthreads();
        line.read<T>(a, sample * a.rows() + in_sample);
        __syncthreads();
        const float place = row.at(times + t) + row.at(high + h), of_place = grad.at(times + t) + grad.at(high + h);
        float of_height = 0.0f;
        for (int w = 0; w < a.widths; ++w) {
            const float raw = unscaled(line.dot(w, query), place + row.at(wide + w), own.slope, line.shift[w]);
            const float gathered =
                unscaled(line.dot(w, grads), of_place + grad.at(wide + w), own.grad_slope, line.shift[w]);
            const float factor = draws.kept(a, in_sample + w, latent) ? (a.threshold ? a.keep_scale : 1.0f) : 0.0f;
            const float probability = there ? expf(raw * line.scale[w] - lse) : 0.0f;
            const auto of_row = row_gradients(own, probability, raw, gathered, factor, line.scale[w]);
            line.add(w, of_row.raw, sums);
            of_height += of_row.raw;
            shifted += of_row.raw * line.shift[w];
            widths[w * kBlock] += of_row.raw;
            const float of_shift = Warp::sum(of_row.of_shift), of_scale = Warp::sum(of_row.of_scale);
            if (thread % 32 == 0) {
                warp_sums[thread / 32 * 2 * a.widths + w] = of_shift;
                warp_sums[(thread / 32 * 2 + 1) * a.widths + w] = of_scale;
            }
        }
        __syncthreads();
        for (int i = thread; i < 2 * a.widths; i += kBlock) {
            const int64_t to = (int64_t(i / a.widths) * a.samples + sample) * a.rows() + in_sample + i % a.widths;
            float total = 0.0f;
            for (int warp = 0; warp < kBlock / 32; ++warp) total += warp_sums[warp * 2 * a.widths + i];
            shares[to] = total;
        }
        if (there) out[high + h] = of_height;
        of_time += of_height;
    }
    if (!there) return;
#pragma unroll
    for (int i = 0; i < kMostPixels; ++i)
        if (i < a.pixel_width) out[i] = sums[i];
    out[a.pixel_width] = shifted;
    for (int other = 0; other < a.times; ++other) out[times + other] = other == t ? of_time : 0.0f;
    for (int w = 0; w < a.widths; ++w) out[wide + w] = widths[w * kBlock];
}

dim3 grid_of(const Arguments& a) {
    return dim3(unsigned(separable_blocks(a)), unsigned(a.times), unsigned(a.samples));
}

template <class T>
int forward(const Arguments& a, cudaStream_t stream) {
    if (!a.samples) return kSuccess;
    const size_t shared = size_t((a.heights + a.widths) * kBlock + Line::floats(a.widths)) * sizeof(float);
    if (const int error = launch_kernel(forward_kernel<T>, grid_of(a), kBlock, shared, stream, a)) return error;
    return launch_kernel(join_kernel, unsigned(a.samples * a.latents), 32, 0, stream, a);
}

template <class T>
int backward(const Arguments& a, cudaStream_t stream) {
    const int64_t shares = 2 * a.samples * a.rows(), blocks = separable_blocks(a);
    const size_t shared =
        size_t(a.widths * kBlock + Line::floats(a.widths) + kBlock / 32 * 2 * a.widths) * sizeof(float);
    if (a.samples)
        if (const int error = launch_kernel(backward_kernel<T>, grid_of(a), kBlock, shared, stream, a)) return error;
    if (const int error = add_partials(a.workspace + blocks * shares, a.samples * a.times, a.latents * a.columns(),
                                       a.grad_queries, stream))
        return error;
    if (!a.samples) return kSuccess;
    // grad_shift and grad_scale lie one behind the other
    return add_partials(a.workspace, blocks, shares, a.grad_shift, stream);
}

template <class T>
int launch(const Arguments& a, bool back, cudaStream_t stream) {
    return back ? backward<T>(a, stream) : forward<T>(a, stream);
}

int launch_typed(const Arguments& a, bool back, cudaStream_t stream) {
    if (a.pixel_width > kMostPixels || a.times >= 1 << 16 || a.samples >= 1 << 16) return kUnsupported;
    switch (a.type) {
        case Type::float32: return launch<float>(a, back, stream);
        case Type::bfloat16: return launch<BFloat16>(a, back, stream);
        default: return launch<Float16>(a, back, stream);
    }
}

}  // namespace

int separable_attention(const Arguments& a, void* stream) {
    return launch_typed(a, false, static_cast<cudaStream_t>(stream));
}

int separable_attention_backward(const Arguments& a, void* stream) {
    return launch_typed(a, true, static_cast<cudaStream_t>(stream));
}

}  // namespace memofast::cuda
