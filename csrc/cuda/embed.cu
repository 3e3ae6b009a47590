// Multimodal embeddings on a GPU, one warp per row. Backward: a block takes sixteen rows of one modality, four
// per warp, sums gamma and beta in registers, and adds its warps in order; every other sum over rows reads
// per-row gradients from the workspace, in the order of samples (positions), of a stable sort (words) or of
// rows (projected rows), so that nothing is atomic.
#include "rows/embed.h"

#include "row_warps.cuh"

namespace memofast::cuda {

// Words and projected rows, whatever their types, so that one kernel serves all modalities.
struct Content {
    const void* values;
    Type type;
};

__device__ __forceinline__ Content operator+(Content content, int64_t elements) {
    const int64_t bytes = elements * (content.type == Type::float32 ? 4 : 2);
    return {static_cast<const char*>(content.values) + bytes, content.type};
}

template <int n>
__device__ __forceinline__ void load(Content content, int count, float* values) {
    switch (content.type) {
        case Type::float32: return load<n>(static_cast<const float*>(content.values), count, values);
        case Type::bfloat16: return load<n>(static_cast<const BFloat16*>(content.values), count, values);
        default: return load<n>(static_cast<const Float16*>(content.values), count, values);
    }
}

namespace {

constexpr int kSlices = 16, kColumns = 128, kSlab = Warp::kLanes * Warp::kChunk;
enum Partial { kGamma, kBeta, kFeatureGamma, kMask };
static_assert(kEmbedRowsPerBlock % kWarps == 0 && kEmbedPartials == kMask + 1);

__device__ Content content_of(const EmbedArguments& a, int modality, int64_t row) {
    const EmbedModality& m = a.modality[modality];
    const Content all{m.content, modality == 0 ? a.word_type : a.type};
    const int64_t index = m.index ? m.index[row] : row;
    return index < 0 ? Content{m.mask, a.type} : all + index * a.width;
}

__device__ EmbedPlace place_of(const EmbedArguments& a, int sample, int joint, int position) {
    return {position, joint, a.threshold ? a.sample_keys[sample] : 0};
}

template <class T, int kChunks>
__global__ void forward_rows(const __grid_constant__ EmbedArguments a) {
    const Warp warp = this_warp();
    const int width = int(a.width);
    const int64_t joint = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (joint >= a.rows) return;
    T* out = static_cast<T*>(a.out) + joint * width;
    EmbedStatistics found{};
    const int sample = sample_of(a.offsets, int(a.samples), joint);
    if (sample == a.samples) {
        zero_row(warp, out, width);
    } else {
        const int in_sample = int(joint - a.offsets[sample]);
        int modality = 0, position = in_sample;
        for (;; ++modality) {
            const int32_t* offsets = a.modality[modality].offsets;
            const int rows = offsets ? offsets[sample + 1] - offsets[sample] : 0;
            if (position < rows || modality == 2) break;
            position -= rows;
        }
        const EmbedModality& m = a.modality[modality];
        RegisterRow<Warp, kChunks> z;
        found = embed_row(warp, z, m, content_of(a, modality, m.offsets[sample] + position),
                          place_of(a, sample, in_sample, position), embed_dropout(a), width, a.eps, out);
    }
    if (warp.lane == 0) reinterpret_cast<EmbedStatistics*>(a.statistics)[joint] = found;
}

// Sums over the rows of one warp; the gradient of content + position + type goes to memory, row by row.
template <int kChunks>
struct Sums {
    RegisterRow<Warp, kChunks> gamma = {}, beta = {}, feature_gamma = {};
    float* mask;  // in shared memory of the warp's own, as few rows are masked
    float* total = nullptr;

    __device__ __forceinline__ void add_total(int k, const Span& span, const float* values) {
        (void)k;
        store<8>(total + span.first, span.count, values);
    }
};

template <int kChunks, class T>
__device__ void store_row(const Warp& warp, RegisterRow<Warp, kChunks>& row, int width, T* target) {
#pragma unroll
    for (int k = 0; k < kChunks; ++k) {
        const Span span = warp.span(k, width);
        store<8>(target + span.first, span.count, row.at(k));
    }
}

template <int kChunks>
__device__ void add_row(const Warp& warp, float* sum, const RegisterRow<Warp, kChunks>& row) {
#pragma unroll
    for (int k = 0; k < kChunks; ++k)
#pragma unroll
        for (int i = 0; i < Warp::kChunk; ++i) sum[warp.slot(k, i)] += row.values[k][i];
}

template <class T, int kChunks>
__device__ void backward_row(const EmbedArguments& a, const EmbedWorkspace& room, int modality, int64_t row,
                             Sums<kChunks>& sums) {
    const Warp warp = this_warp();
    const EmbedModality& m = a.modality[modality];
    const int width = int(a.width), sample = sample_of(m.offsets, int(a.samples), row);
    if (sample == a.samples) {
        if (modality > 0 && !m.index) zero_row(warp, static_cast<T*>(m.grad_content) + row * width, width);
        return;
    }
    const int position = int(row - m.offsets[sample]);
    const int64_t joint = embed_first(a, modality, sample) + position;
    const EmbedPlace at = place_of(a, sample, int(joint - a.offsets[sample]), position);
    const EmbedStatistics known = reinterpret_cast<const EmbedStatistics*>(a.statistics)[joint];
    RegisterRow<Warp, kChunks> d, z, h;
    sums.total = a.workspace + room.total[modality] + row * width;
    embed_row_backward(warp, d, z, h, sums, m, content_of(a, modality, row), at, known, embed_dropout(a), width,
                       static_cast<const T*>(a.grad) + joint * width);
    if (modality == 0) return;
    if (!m.index) store_row(warp, d, width, static_cast<T*>(m.grad_content) + row * width);
    else if (m.index[row] < 0) add_row(warp, sums.mask, d);
    else store_row(warp, d, width, a.workspace + room.content[modality] + row * width);
}

// Adds one row of every warp, in order of warps, into `target`.
template <int kChunks>
__device__ void add_warps(RegisterRow<Warp, kChunks>& row, float* shared, int width, float* target) {
    const Warp warp = this_warp();
    for (int number = 0; number < kWarps; ++number) {
        if (number == int(threadIdx.x / 32)) {
#pragma unroll
            for (int k = 0; k < kChunks; ++k)
#pragma unroll
                for (int i = 0; i < Warp::kChunk; ++i) {
                    float& sum = shared[warp.slot(k, i)];
                    sum = number ? sum + row.at(k)[i] : row.at(k)[i];
                }
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < width; i += blockDim.x) target[i] = shared[Warp::slot_of_channel(i)];
    __syncthreads();
}

template <class T, int kChunks>
__global__ void __launch_bounds__(32 * kWarps) backward_rows(const __grid_constant__ EmbedArguments a,
                                                             const __grid_constant__ EmbedWorkspace room) {
    __shared__ float shared[kChunks * kSlab], masks[kWarps][kChunks * kSlab];
    const int modality = blockIdx.x < room.first_block[1] ? 0 : blockIdx.x < room.first_block[2] ? 1 : 2;
    const int64_t first = (blockIdx.x - room.first_block[modality]) * kEmbedRowsPerBlock;
    for (int i = threadIdx.x; i < kWarps * kChunks * kSlab; i += blockDim.x) masks[0][i] = 0.0f;
    __syncthreads();
    Sums<kChunks> sums;
    sums.mask = masks[threadIdx.x / 32];
    for (int64_t row = first + threadIdx.x / 32; row < first + kEmbedRowsPerBlock; row += kWarps)
        if (row < a.modality[modality].rows) backward_row<T>(a, room, modality, row, sums);
    float* partial = a.workspace + room.partials + int64_t(blockIdx.x) * kEmbedPartials * a.width;
    add_warps(sums.gamma, shared, int(a.width), partial + kGamma * a.width);
    add_warps(sums.beta, shared, int(a.width), partial + kBeta * a.width);
    if (modality == 0) return;
    add_warps(sums.feature_gamma, shared, int(a.width), partial + kFeatureGamma * a.width);
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) {
        float sum = 0.0f;
        for (int number = 0; number < kWarps; ++number) sum += masks[number][Warp::slot_of_channel(i)];
        partial[kMask * a.width + i] = sum;
    }
}

// Gradient of one row of a position table: the rows at that position, sample by sample.
__global__ void sum_positions(const __grid_constant__ EmbedArguments a, const __grid_constant__ EmbedWorkspace room) {
    const EmbedModality& m = a.modality[blockIdx.z];
    const int64_t column = int64_t(blockIdx.y) * kColumns + threadIdx.x, position = blockIdx.x;
    if (!m.offsets || position >= m.positions || column >= a.width) return;
    const float* total = a.workspace + room.total[blockIdx.z] + column;
    float sum = 0.0f;
#pragma unroll 4
    for (int sample = 0; sample < a.samples; ++sample) {
        const int64_t row = m.offsets[sample] + position;
        if (row < m.offsets[sample + 1]) sum += total[row * a.width];
    }
    m.grad_position[position * a.width + column] = sum;
}

// Sums of partials, and of position gradients for types and the inner beta: slices in parallel, then slices in order.
__global__ void sum_vectors(const __grid_constant__ EmbedArguments a, const __grid_constant__ EmbedWorkspace room) {
    const int modality = blockIdx.y / 6, which = blockIdx.y % 6;
    const EmbedModality& m = a.modality[modality];
    float* const targets[] = {m.grad_gamma, m.grad_beta, m.grad_feature_gamma,
                              static_cast<float*>(m.grad_mask), m.grad_type, m.grad_feature_beta};
    float* target = nullptr;
#pragma unroll
    for (int i = 0; i < 6; ++i)
        if (i == which) target = targets[i];
    if (!target) return;
    const bool by_position = which >= kEmbedPartials;
    const float* rows = by_position
        ? m.grad_position
        : a.workspace + room.partials + (room.first_block[modality] * kEmbedPartials + which) * a.width;
    const int64_t stride = by_position ? a.width : kEmbedPartials * a.width;
    const int64_t count = by_position ? m.positions : room.first_block[modality + 1] - room.first_block[modality];
    const int64_t column = int64_t(blockIdx.x) * 32 + threadIdx.x;
    __shared__ float slices[kSlices][32];
    float sum = 0.0f;
    if (column < a.width)
        for (int64_t row = count * threadIdx.y / kSlices; row < count * (threadIdx.y + 1) / kSlices; ++row)
            sum += rows[row * stride + column];
    slices[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= a.width) return;
    for (int slice = 1; slice < kSlices; ++slice) sum += slices[slice][threadIdx.x];
    target[column] = sum;
}

__device__ __forceinline__ void add_span(const float* row, const Span& span, float* sum) {
    float values[Warp::kChunk];
    load<8>(row + span.first, span.count, values);
#pragma unroll
    for (int i = 0; i < Warp::kChunk; ++i) sum[i] += values[i];
}

// A warp sums one slab of the run of equal ids that starts at its place among the sorted rows, if one does.
template <class Word>
__global__ void gather_words(const __grid_constant__ EmbedArguments a, const __grid_constant__ EmbedWorkspace room) {
    const Warp warp = this_warp();
    const EmbedModality& m = a.modality[0];
    const int64_t place = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, end = m.offsets[a.samples];
    if (place >= m.rows || m.order[place] >= end) return;
    const int32_t id = m.index[m.order[place]];
    if (place > 0 && m.index[m.order[place - 1]] == id) return;
    const Span span = warp.span(blockIdx.y, int(a.width));
    const float* total = a.workspace + room.total[0];
    float sum[Warp::kChunk] = {};
    for (int64_t base = place, run = 32; run == 32; base += 32) {
        const int64_t at = base + warp.lane;
        const int row = at < m.rows && m.order[at] < end && m.index[m.order[at]] == id ? int(m.order[at]) : -1;
        run = __popc(__ballot_sync(~0u, row >= 0));
#pragma unroll 4
        for (int i = 0; i < run; ++i) add_span(total + __shfl_sync(~0u, row, i) * a.width, span, sum);
    }
    store<8>(static_cast<Word*>(m.grad_content) + id * a.width + span.first, span.count, sum);
}

// A warp sums one slab of the gradients of all rows that read its projected row.
template <class T>
__global__ void gather_projected(const __grid_constant__ EmbedArguments a,
                                 const __grid_constant__ EmbedWorkspace room) {
    const Warp warp = this_warp();
    const int modality = 1 + blockIdx.z;
    const EmbedModality& m = a.modality[modality];
    const int64_t read = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (!m.offsets || !m.index || read >= m.rows) return;
    const Span span = warp.span(blockIdx.y, int(a.width));
    const float* content = a.workspace + room.content[modality];
    float sum[Warp::kChunk] = {};
    const int sample = sample_of(m.offsets, int(a.samples), read);
    const int64_t end = sample < a.samples ? m.offsets[sample + 1] : 0;
    for (int64_t base = sample < a.samples ? m.offsets[sample] : 0; base < end; base += 32) {
        const bool reads = base + warp.lane < end && m.index[base + warp.lane] == read;
        for (uint32_t readers = __ballot_sync(~0u, reads); readers; readers &= readers - 1)
            add_span(content + (base + __ffs(readers) - 1) * a.width, span, sum);
    }
    store<8>(static_cast<T*>(m.grad_content) + read * a.width + span.first, span.count, sum);
}

unsigned blocks_of(int64_t items, int64_t per_block) { return unsigned((items + per_block - 1) / per_block); }

template <class T, int kChunks>
int forward(const EmbedArguments& a, cudaStream_t stream) {
    if (!a.rows) return kSuccess;
    return launch_kernel(forward_rows<T, kChunks>, blocks_of(a.rows, kWarps), 32 * kWarps, 0, stream, a);
}

template <class Word>
int words(const EmbedArguments& a, const EmbedWorkspace& room, cudaStream_t stream) {
    const EmbedModality& m = a.modality[0];
    const dim3 blocks(blocks_of(m.rows, kWarps), blocks_of(a.width, kSlab));
    if (const int error = told_once(cudaMemsetAsync(m.grad_content, 0, m.contents * a.width * sizeof(Word), stream)))
        return error;
    return m.rows ? launch_kernel(gather_words<Word>, blocks, 32 * kWarps, 0, stream, a, room) : kSuccess;
}

template <class T, int kChunks>
int backward(const EmbedArguments& a, cudaStream_t stream) {
    const EmbedWorkspace room(a);
    const unsigned row_blocks = unsigned(room.first_block[3]);
    int64_t positions = 0, features = 0;
    for (int m = 0; m < 3; ++m) {
        if (a.modality[m].positions > positions) positions = a.modality[m].positions;
        if (m > 0 && a.modality[m].index && a.modality[m].rows > features) features = a.modality[m].rows;
    }
    int error =
        row_blocks ? launch_kernel(backward_rows<T, kChunks>, row_blocks, 32 * kWarps, 0, stream, a, room) : kSuccess;
    if (!error && positions) {
        const dim3 blocks(unsigned(positions), blocks_of(a.width, kColumns), 3);
        error = launch_kernel(sum_positions, blocks, kColumns, 0, stream, a, room);
    }
    if (!error)
        error = launch_kernel(sum_vectors, dim3(blocks_of(a.width, 32), 3 * 6), dim3(32, kSlices), 0, stream, a, room);
    if (!error) error = a.word_type == Type::float32 ? words<float>(a, room, stream) : words<T>(a, room, stream);
    if (!error && features) {
        const dim3 blocks(blocks_of(features, kWarps), blocks_of(a.width, kSlab), 2);
        error = launch_kernel(gather_projected<T>, blocks, 32 * kWarps, 0, stream, a, room);
    }
    return error;
}

template <class T>
int launch(const EmbedArguments& a, bool is_backward, cudaStream_t stream) {
    if (a.width <= 256) return is_backward ? backward<T, 1>(a, stream) : forward<T, 1>(a, stream);
    if (a.width <= 512) return is_backward ? backward<T, 2>(a, stream) : forward<T, 2>(a, stream);
    if (a.width <= 768) return is_backward ? backward<T, 3>(a, stream) : forward<T, 3>(a, stream);
    return is_backward ? backward<T, 4>(a, stream) : forward<T, 4>(a, stream);
}

int launch(const EmbedArguments& a, bool is_backward, void* stream) {
    if (a.width < 1 || a.width > kRegisterWidth || (a.word_type != Type::float32 && a.word_type != a.type))
        return kUnsupported;
    const auto on = static_cast<cudaStream_t>(stream);
    switch (a.type) {
        case Type::float32: return launch<float>(a, is_backward, on);
        case Type::bfloat16: return launch<BFloat16>(a, is_backward, on);
        default: return launch<Float16>(a, is_backward, on);
    }
}

}  // namespace

int embed_forward(const EmbedArguments& a, void* stream) { return launch(a, false, stream); }

int embed_backward(const EmbedArguments& a, void* stream) { return launch(a, true, stream); }

}  // namespace memofast::cuda
