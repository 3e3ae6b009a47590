// Rows on a GPU: one warp per row; sums over rows are one partial per 64 rows, added in order by a second kernel.
#pragma once

#include "launch.cuh"
#include "rows/lanes.h"

namespace memofast::cuda {

constexpr int kWarps = 4;             // of a block
constexpr int kRegisterWidth = 1024;  // a row up to this width lies in registers, a wider one in shared memory

__device__ __forceinline__ Warp this_warp() { return {int(threadIdx.x % 32)}; }

// The sample of a row (`samples` past the last), by bisection.
__device__ __forceinline__ int sample_of(const int32_t* offsets, int samples, int64_t row) {
    int low = 0, high = samples;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (offsets[middle + 1] > row) high = middle;
        else low = middle + 1;
    }
    return low;
}

template <class T>
__device__ void zero_row(const Warp& warp, T* row, int width) {
    const float zeros[8] = {};
    for (int k = 0; k * 256 < width; ++k) {
        const Span span = warp.span(k, width);
        store<8>(row + span.first, span.count, zeros);
    }
}

static __global__ void sum_partials(const float* partials, int64_t chunks, int64_t columns, float* sums) {
    const int64_t column = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float total = 0.0f;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += partials[chunk * columns + column];
    sums[column] = total;
}

static int add_partials(const float* partials, int64_t chunks, int64_t columns, float* sums, cudaStream_t stream) {
    return launch_kernel(sum_partials, unsigned((columns + 127) / 128), 128, 0, stream, partials, chunks, columns,
                         sums);
}

}  // namespace memofast::cuda
