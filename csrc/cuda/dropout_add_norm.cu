// LayerNorm(residual + dropout(x + bias)) on a GPU, one warp per row: memory sees each tensor once.
// Backward gives a block 64 rows; each of its warps sums every fourth of them in shared memory of
// its own, and the block adds its warps in order.
#include "rows/dropout_add_norm.h"

#include "row_warps.cuh"

namespace memofast::cuda {
namespace {

template <int kChunks>
struct Registers {
    using Row = RegisterRow<Warp, kChunks>;
    static constexpr int kBlockWarps = kWarps;
    static __device__ Row row(float*, int, int) { return {}; }
    static constexpr int floats(int) { return 0; }
};

// Lane-private slices of shared memory; a block is one warp.
struct Shared {
    using Row = MemoryRow<Warp>;
    static constexpr int kBlockWarps = 1;
    static __device__ Row row(float* shared, int number, int width) {
        return {shared + (number * 32 + threadIdx.x % 32) * Row::floats_per_row(width)};
    }
    static constexpr int floats(int width) { return 32 * ((width + 255) / 256) * 8; }
};

int padded(int width) { return (width + 255) / 256 * 256; }

template <class T, class B>
__device__ NormRow<T, B> row_at(const DropoutAddNormArguments& a, int64_t row, int sample) {
    const Dropout dropout{a.threshold ? stream_key(a.rng, 1, a.site) : Key{0, 0}, a.threshold, a.scale};
    const int64_t at = row * a.width;
    return {static_cast<const T*>(a.x) + at, static_cast<const T*>(a.residual) + at, static_cast<const B*>(a.bias),
            a.gamma, a.beta, dropout, a.threshold ? a.sample_keys[sample] : 0,
            a.offsets ? uint32_t(row - a.offsets[sample]) : uint32_t(row), a.width};
}

__device__ bool inside(const DropoutAddNormArguments& a, int sample) { return !a.offsets || sample < a.samples; }

template <class T, class B, class Storage>
__global__ void forward_kernel(const DropoutAddNormArguments a) {
    float* shared = shared_memory<float>();
    const Warp warp = this_warp();
    const int64_t row = int64_t(blockIdx.x) * Storage::kBlockWarps + threadIdx.x / 32;
    if (row >= a.rows) return;
    const int sample = a.offsets ? sample_of(a.offsets, a.samples, row) : 0;
    T* out = static_cast<T*>(a.out) + row * a.width;
    if (!inside(a, sample)) {
        zero_row(warp, out, a.width);
        if (warp.lane == 0) a.statistics[2 * row] = a.statistics[2 * row + 1] = 0.0f;
        return;
    }
    typename Storage::Row z = Storage::row(shared, 0, a.width);
    norm_row(warp, row_at<T, B>(a, row, sample), z, a.eps, out, a.statistics + 2 * row);
}

template <class T, class B, class Storage>
__global__ void backward_kernel(const DropoutAddNormArguments a) {
    float* shared = shared_memory<float>();
    const Warp warp = this_warp();
    const int number = threadIdx.x / 32, kinds = a.bias ? 3 : 2, columns = (a.width + 255) / 256 * 256;
    float* rows = shared;
    float* sums = shared + 3 * Storage::floats(a.width);  // [warps, kinds, columns]
    for (int i = threadIdx.x; i < Storage::kBlockWarps * kinds * columns; i += blockDim.x) sums[i] = 0.0f;
    __syncthreads();
    float* own = sums + number * kinds * columns;
    const int64_t first = int64_t(blockIdx.x) * kRowsPerChunk;
    for (int64_t row = first + number; row < first + kRowsPerChunk && row < a.rows; row += Storage::kBlockWarps) {
        const int sample = a.offsets ? sample_of(a.offsets, a.samples, row) : 0;
        const int64_t at = row * a.width;
        T *grad_x = a.grad_x ? static_cast<T*>(a.grad_x) + at : nullptr,
          *grad_residual = static_cast<T*>(a.grad_residual) + at;
        if (!inside(a, sample)) {
            zero_row(warp, grad_residual, a.width);
            if (grad_x) zero_row(warp, grad_x, a.width);
            continue;
        }
        typename Storage::Row normal = Storage::row(rows, 0, a.width), scaled = Storage::row(rows, 1, a.width),
                              factors = Storage::row(rows, 2, a.width);
        norm_row_backward(warp, row_at<T, B>(a, row, sample), a.statistics + 2 * row,
                          static_cast<const T*>(a.grad) + at, normal, scaled, factors, grad_x, grad_residual, own,
                          own + columns, a.bias ? own + 2 * columns : nullptr);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kinds * a.width; i += blockDim.x) {
        const int slot = i / a.width * columns + Warp::slot_of_channel(i % a.width);
        float total = 0.0f;
        for (int w = 0; w < Storage::kBlockWarps; ++w) total += sums[w * kinds * columns + slot];
        a.partials[int64_t(blockIdx.x) * kinds * a.width + i] = total;
    }
}

template <class T, class B, class Storage>
int launch(const DropoutAddNormArguments& a, bool backward, cudaStream_t stream) {
    const int kinds = a.bias ? 3 : 2, threads = Storage::kBlockWarps * 32;
    const int rows = (backward ? 3 : 1) * Storage::floats(a.width);
    const int floats = rows + (backward ? Storage::kBlockWarps * kinds * padded(a.width) : 0);
    const int rows_per_block = backward ? kRowsPerChunk : Storage::kBlockWarps;
    const int64_t blocks = (a.rows + rows_per_block - 1) / rows_per_block;
    if (blocks) {
        const auto kernel = backward ? backward_kernel<T, B, Storage> : forward_kernel<T, B, Storage>;
        if (const int error = launch_kernel(kernel, unsigned(blocks), threads, floats * sizeof(float), stream, a))
            return error;
    }
    return backward ? add_partials(a.partials, blocks, int64_t{kinds} * a.width, a.sums, stream) : kSuccess;
}

template <class T, class B>
int launch_width(const DropoutAddNormArguments& a, bool backward, cudaStream_t stream) {
    if (a.width <= 256) return launch<T, B, Registers<1>>(a, backward, stream);
    if (a.width <= 512) return launch<T, B, Registers<2>>(a, backward, stream);
    if (a.width <= 768) return launch<T, B, Registers<3>>(a, backward, stream);
    if (a.width <= kRegisterWidth) return launch<T, B, Registers<4>>(a, backward, stream);
    return launch<T, B, Shared>(a, backward, stream);
}

template <class T>
int launch_bias(const DropoutAddNormArguments& a, bool backward, cudaStream_t stream) {
    return a.bias_type == Type::float32 ? launch_width<T, float>(a, backward, stream)
                                        : launch_width<T, T>(a, backward, stream);
}

int launch_typed(const DropoutAddNormArguments& a, bool backward, cudaStream_t stream) {
    switch (a.type) {
        case Type::float32: return launch_bias<float>(a, backward, stream);
        case Type::bfloat16: return launch_bias<BFloat16>(a, backward, stream);
        default: return launch_bias<Float16>(a, backward, stream);
    }
}

}  // namespace

int dropout_add_norm(const DropoutAddNormArguments& a, void* stream) {
    return launch_typed(a, false, static_cast<cudaStream_t>(stream));
}

int dropout_add_norm_backward(const DropoutAddNormArguments& a, void* stream) {
    return launch_typed(a, true, static_cast<cudaStream_t>(stream));
}

}  // namespace memofast::cuda
