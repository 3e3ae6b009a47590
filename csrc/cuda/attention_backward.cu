// Attention backward on a GPU, in one launch and without atomics: first each warp owns 16 queries and sums their gradient over the
// keys, then it owns 16 keys and sums their gradient and that of their values over the queries. Probabilities are computed from the
// saved log-sum-exp and dropout is drawn again, both times; no sum is ever shared by two warps.
// Memory: queries, keys, values, the output and its gradient are read once, three gradients are written.
#include "cuda/attention.cuh"

namespace memofast::cuda {
namespace {

// Of one query: log2 of its sum of exponentials, and the sum over its output times its gradient, scaled as the scores are.
struct QueryFacts {
    float log_total, shift;
};

template <class T, int width>
struct Block {
    SharedRows<T, width> q, grad, k, v;
    QueryFacts* facts;
};

// The left operands of a product: kept in registers where that costs few of them, else read again for every tile.
template <class T, int width>
struct OwnRows {
    static constexpr bool kKept = sizeof(T) == 2 && width <= 64;
    SharedRows<T, width> rows;
    int first;
    Left<T> kept[kKept ? width / 16 : 1];

    __device__ __forceinline__ OwnRows(SharedRows<T, width> rows, int first) : rows(rows), first(first) {
        if constexpr (kKept) {
#pragma unroll
            for (int d = 0; d < width / 16; ++d) kept[d] = load_left(rows, first, d * 16);
        }
    }
    __device__ __forceinline__ Left<T> operator[](int d) const {
        if constexpr (kKept) return kept[d / 16];
        else return load_left(rows, first, d);
    }
};

// sums[16, 16] += own rows times other rows.
template <class T, int width>
__device__ __forceinline__ void multiply_rows(float (&sums)[2][4], const OwnRows<T, width>& own, SharedRows<T, width> others, int first) {
#pragma unroll
    for (int d = 0; d < width; d += 16) multiply_add_tile(sums[0], sums[1], own[d], load_right(others, first, d));
}

// sums[16, width] += tile[16, 16] times rows.
template <class T, int width>
__device__ __forceinline__ void add_rows(float (&sums)[width / 8][4], const float (&tile)[2][4], SharedRows<T, width> rows, int first) {
    const Left<T> left = left_of<T>(tile);
#pragma unroll
    for (int n = 0; n < width / 8; n += 2) multiply_add_tile(sums[n], sums[n + 1], left, load_right_across(rows, first, n * 8));
}

// What every tile needs of the launch.
struct Scales {
    float exponent, kept;  // of scores, as powers of two; of gradients of probabilities that dropout kept

    __device__ __forceinline__ explicit Scales(const AttentionArguments& a) : exponent(a.scale * kLog2E), kept(a.keep_scale * a.scale) {}
};

// 16 queries of a warp and the tile of 16 keys at `key_row`, of which `keys` are real: the gradient of the queries.
template <class T, int width>
__device__ __forceinline__ void add_keys(float (&sums)[width / 8][4], const OwnRows<T, width>& q, const OwnRows<T, width>& grad,
                                         const Block<T, width>& block, const QueryFacts (&facts)[2], int key_row, int keys,
                                         int query, int key, const AttentionDropout& dropout, Scales scales) {
    float s[2][4] = {}, g[2][4] = {};
    multiply_rows(s, q, block.k, key_row);
    multiply_rows(g, grad, block.v, key_row);
    const uint32_t kept = dropout.threshold ? dropout.by_query(query, key) : ~0u;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const QueryFacts& of = facts[i / 2 % 2];
        const bool keep = kept >> (8 * (i / 2 % 2 + i / 4 * 2) + i % 2) & 1, real = i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2 < keys;
        const float p = power_of_two(s[i / 4][i % 4] * scales.exponent - of.log_total);
        s[i / 4][i % 4] = real ? p * (g[i / 4][i % 4] * (keep ? scales.kept : 0.0f) - of.shift) : 0.0f;
    }
    add_rows(sums, s, block.k, key_row);
}

// 16 keys of a warp and the tile of 16 queries at `query_row`: the gradients of the keys and of their values, the latter still to
// be scaled for dropout.
template <class T, int width>
__device__ __forceinline__ void add_queries(float (&key_sums)[width / 8][4], float (&value_sums)[width / 8][4],
                                            const OwnRows<T, width>& k, const OwnRows<T, width>& v, const Block<T, width>& block,
                                            int query_row, int query, int key, const AttentionDropout& dropout, Scales scales) {
    float s[2][4] = {}, g[2][4] = {};
    multiply_rows(s, k, block.q, query_row);
    multiply_rows(g, v, block.grad, query_row);
    const uint2 kept = dropout.threshold ? dropout.by_key(query, key) : uint2{~0u, ~0u};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const QueryFacts of = block.facts[query_row + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2];
        const bool keep = (i / 2 % 2 ? kept.y : kept.x) >> (8 * (i % 2 + i / 4 * 2)) & 1;
        const float p = power_of_two(s[i / 4][i % 4] * scales.exponent - of.log_total);
        s[i / 4][i % 4] = keep ? p : 0.0f;
        g[i / 4][i % 4] = p * (g[i / 4][i % 4] * (keep ? scales.kept : 0.0f) - of.shift);
    }
    add_rows(value_sums, s, block.grad, query_row);
    add_rows(key_sums, g, block.q, query_row);
}

// Where a sequence's rows lie in memory.
template <class T>
struct Sources {
    HeadRows<const T> q, k, v, out, grad;
    const float* lse;
    int64_t lse_stride;
    float scale;

    __device__ Sources(const AttentionArguments& a, const Sequence& s)
        : q(part_of(static_cast<const T*>(a.qkv), a, s, 0)), k(part_of(static_cast<const T*>(a.qkv), a, s, 1)),
          v(part_of(static_cast<const T*>(a.qkv), a, s, 2)), out(head_of(static_cast<const T*>(a.saved), a, s)),
          grad(head_of(static_cast<const T*>(a.grad), a, s)), lse(a.lse + s.first * a.heads + s.head), lse_stride(a.heads),
          scale(a.scale) {}
};

template <class T, int width>
__device__ __forceinline__ void start_keys(const Block<T, width>& block, const Sources<T>& from, int first, int count) {
    start_rows(block.k, from.k, first, count);
    start_rows(block.v, from.v, first, count);
}

// Queries, their output's gradient and their facts; queries past `count` get probability 0.
template <class T, int width>
__device__ __forceinline__ void start_queries(const Block<T, width>& block, const Sources<T>& from, int first, int count) {
    start_rows(block.q, from.q, first, count);
    start_rows(block.grad, from.grad, first, count);
    for (int base = threadIdx.x / 32 * 8; base < tiles_of(count) * kTile; base += blockDim.x / 4) {
        const int row = base + threadIdx.x % 32 / 4;
        float total = 0.0f;
        for (int column = threadIdx.x % 4 * 8; column < width && row < count; column += 32) {
            float out[8], grad[8];
            load<8>(from.out.row(first + row) + column, 8, out);
            load<8>(from.grad.row(first + row) + column, 8, grad);
#pragma unroll
            for (int i = 0; i < 8; ++i) total += out[i] * grad[i];
        }
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        if (threadIdx.x % 4 == 0)
            block.facts[row] = {row < count ? from.lse[(first + row) * from.lse_stride] * kLog2E : INFINITY, total * from.scale};
    }
}

template <class T, int width>
__global__ void __launch_bounds__(32 * kMostWarps) backward_kernel(const __grid_constant__ AttentionArguments a, int capacity) {
    const Sequence s = this_sequence(a);
    const AttentionDropout dropout(a, s);
    const Sources<T> from(a, s);
    const Scales scales(a);
    const int warp = threadIdx.x / 32, own = blockDim.x / 32 * kTile;  // rows that the warps own at a time
    const bool whole = s.length <= capacity;
    using Rows = SharedRows<T, width>;
    const Rows q{shared_memory<T>()}, grad{q.row(capacity)}, k{grad.row(capacity)}, v{k.row(capacity)};
    const Block<T, width> block{q, grad, k, v, reinterpret_cast<QueryFacts*>(v.row(capacity))};
    T* out = static_cast<T*>(a.out);
    const auto of_queries = part_of(out, a, s, 0), of_keys = part_of(out, a, s, 1), of_values = part_of(out, a, s, 2);

    if (whole) {
        start_queries(block, from, 0, s.length);
        start_keys(block, from, 0, s.length);
        wait_for_copies();
        __syncthreads();
    }
    for (int first = 0; first < s.length; first += own) {
        const int query = first + warp * kTile, row = whole ? query : warp * kTile, count = s.length - query;
        float sums[width / 8][4] = {};
        for (int chunk = 0; chunk < s.length; chunk += capacity) {
            const int keys = min(capacity, s.length - chunk);
            if (!whole) {
                __syncthreads();
                if (chunk == 0) start_queries(block, from, first, min(own, s.length - first));
                start_keys(block, from, chunk, keys);
                wait_for_copies();
                __syncthreads();
            }
            if (count <= 0) continue;
            const OwnRows<T, width> own_q(q, row), own_grad(grad, row);
            const int g = threadIdx.x % 32 / 4;
            const QueryFacts facts[2] = {block.facts[row + g], block.facts[row + g + 8]};
            for (int key = 0; key < keys; key += kTile)
                add_keys(sums, own_q, own_grad, block, facts, key, keys - key, query, chunk + key, dropout, scales);
        }
        if (count > 0) store_tile<T, width>(sums, {1.0f, 1.0f}, of_queries.row(query), of_queries.stride, count);
    }
    for (int first = 0; first < s.length; first += own) {
        const int key = first + warp * kTile, row = whole ? key : warp * kTile, count = s.length - key;
        float key_sums[width / 8][4] = {}, value_sums[width / 8][4] = {};
        for (int chunk = 0; chunk < s.length; chunk += capacity) {
            const int queries = min(capacity, s.length - chunk);
            if (!whole) {
                __syncthreads();
                if (chunk == 0) start_keys(block, from, first, min(own, s.length - first));
                start_queries(block, from, chunk, queries);
                wait_for_copies();
                __syncthreads();
            }
            if (count <= 0) continue;
            const OwnRows<T, width> own_k(k, row), own_v(v, row);
            for (int query = 0; query < queries; query += kTile)
                add_queries(key_sums, value_sums, own_k, own_v, block, query, chunk + query, key, dropout, scales);
        }
        if (count <= 0) continue;
        store_tile<T, width>(key_sums, {1.0f, 1.0f}, of_keys.row(key), of_keys.stride, count);
        store_tile<T, width>(value_sums, {a.keep_scale, a.keep_scale}, of_values.row(key), of_values.stride, count);
    }
    for (const auto& part : {of_queries, of_keys, of_values}) zero_rows<T, width>(part, s.length, s.unused);
}

}  // namespace

int attention_backward(const AttentionArguments& a, void* stream) {
    return for_type_and_width(a, [&](auto element, auto width) -> int {
        using T = decltype(element);
        AttentionLaunch plan;
        const int bytes = 4 * SharedRows<T, width>::kStride * sizeof(T) + sizeof(QueryFacts);
        if (const int status = plan_attention(a, bytes, plan)) return status;
        return launch_kernel(backward_kernel<T, width>, unsigned((a.samples + 1) * a.heads), 32 * plan.warps, plan.shared_bytes,
                             static_cast<cudaStream_t>(stream), a, plan.capacity);
    });
}

}  // namespace memofast::cuda
