// GELU(x + bias) on a GPU: a warp walks rows in one chunk of 256 channels, holding their bias. Forward 8 rows; backward
// 16, four warps to a block of 64 rows, whose sums the block adds in order.
#include "rows/bias_gelu.h"

#include "row_warps.cuh"

namespace memofast::cuda {
namespace {

constexpr int kForwardRows = 8;

template <class T, class B>
__global__ void forward_kernel(const BiasGeluArguments a) {
    const Span span = this_warp().span(blockIdx.y, a.width);
    if (span.count == 0) return;
    float bias[8];
    load<8>(static_cast<const B*>(a.bias) + span.first, span.count, bias);
    const int64_t first = (int64_t(blockIdx.x) * kWarps + threadIdx.x / 32) * kForwardRows;
    for (int64_t row = first; row < first + kForwardRows && row < a.rows; ++row) {
        const int64_t at = row * a.width + span.first;
        gelu_packet(static_cast<const T*>(a.x) + at, bias, span.count, static_cast<T*>(a.out) + at);
    }
}

template <class T, class B>
__global__ void backward_kernel(const BiasGeluArguments a) {
    __shared__ float shared[kWarps][256];
    const Warp warp = this_warp();
    const int number = threadIdx.x / 32;
    const Span span = warp.span(blockIdx.y, a.width);
    float bias[8], sums[8] = {};
    load<8>(static_cast<const B*>(a.bias) + span.first, span.count, bias);
    constexpr int rows = kRowsPerChunk / kWarps;
    const int64_t first = int64_t(blockIdx.x) * kRowsPerChunk + number * rows;
    for (int64_t row = first; span.count && row < first + rows && row < a.rows; ++row) {
        const int64_t at = row * a.width + span.first;
        gelu_packet_backward(static_cast<const T*>(a.x) + at, bias, static_cast<const T*>(a.grad) + at, span.count,
                                  static_cast<T*>(a.grad_x) + at, sums);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) shared[number][warp.slot(0, i)] = sums[i];
    __syncthreads();
    for (int i = threadIdx.x; i < 256 && blockIdx.y * 256 + i < a.width; i += blockDim.x) {
        float total = 0.0f;
        for (int w = 0; w < kWarps; ++w) total += shared[w][Warp::slot_of_channel(i)];
        a.partials[int64_t(blockIdx.x) * a.width + blockIdx.y * 256 + i] = total;
    }
}

template <class T, class B>
int launch(const BiasGeluArguments& a, bool backward, cudaStream_t stream) {
    const int rows = backward ? kRowsPerChunk : kWarps * kForwardRows;
    const int64_t blocks = (a.rows + rows - 1) / rows;
    const dim3 grid(unsigned(blocks), unsigned((a.width + 255) / 256));
    if (grid.x && grid.y) {
        const auto kernel = backward ? backward_kernel<T, B> : forward_kernel<T, B>;
        if (const int error = launch_kernel(kernel, grid, kWarps * 32, 0, stream, a)) return error;
    }
    return backward && a.width ? add_partials(a.partials, blocks, a.width, a.grad_bias, stream) : kSuccess;
}

template <class T>
int launch_bias(const BiasGeluArguments& a, bool backward, cudaStream_t stream) {
    return a.bias_type == Type::float32 ? launch<T, float>(a, backward, stream) : launch<T, T>(a, backward, stream);
}

int launch_typed(const BiasGeluArguments& a, bool backward, cudaStream_t stream) {
    switch (a.type) {
        case Type::float32: return launch_bias<float>(a, backward, stream);
        case Type::bfloat16: return launch_bias<BFloat16>(a, backward, stream);
        default: return launch_bias<Float16>(a, backward, stream);
    }
}

}  // namespace

int bias_gelu(const BiasGeluArguments& a, void* stream) {
    return launch_typed(a, false, static_cast<cudaStream_t>(stream));
}

int bias_gelu_backward(const BiasGeluArguments& a, void* stream) {
    return launch_typed(a, true, static_cast<cudaStream_t>(stream));
}

}  // namespace memofast::cuda
