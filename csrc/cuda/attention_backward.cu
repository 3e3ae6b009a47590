// Attention backward on a GPU, in one launch and without atomics: a warp owns 16 keys and sums their gradient and that
// of their values over the queries, or it owns 16 queries and sums their gradient over the keys. Probabilities are
// computed from the saved log-sum-exp, once for each; no sum is ever shared by two warps.
// Memory: queries, keys, values, the output and its gradient are read once, three gradients are written.
#include "cuda/attention.cuh"

namespace memofast::cuda {
namespace {

// Of one query: log2 of its sum of exponentials, and the sum over its output times its gradient,
// scaled as the scores are.
struct QueryFacts {
    float log_total, shift;
};

template <class T, int width>
using Rows = SharedRows<T, width, 4>;

template <class T, int width>
struct Block {
    Rows<T, width> q, grad, k, v;
    QueryFacts* facts;
    KeptBits bits;

    __device__ __forceinline__ Block(const AttentionArguments& a, int capacity)
        : q{shared_memory<T>()}, grad{q.at + width}, k{grad.at + width}, v{k.at + width},
          facts(reinterpret_cast<QueryFacts*>(q.row(capacity))),
          bits{a.threshold ? reinterpret_cast<uint8_t*>(facts + capacity) : nullptr, capacity / 8} {}
};

// The left operands of a product: kept in registers where that costs few of them, else read again for every tile.
template <class T, int width>
struct OwnRows {
    static constexpr bool kKept = sizeof(T) == 2 && width <= 64;
    Rows<T, width> rows;
    int first;
    Left<T> kept[kKept ? width / 16 : 1];

    __device__ __forceinline__ OwnRows(Rows<T, width> rows, int first) : rows(rows), first(first) {
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
__device__ __forceinline__ void multiply_rows(float (&sums)[2][4], const OwnRows<T, width>& own, Rows<T, width> others,
                                              int first) {
    // more loads in flight would take too many registers
    constexpr int ahead = OwnRows<T, width>::kKept ? width / 16 : 2;
#pragma unroll ahead
    for (int d = 0; d < width; d += 16) multiply_add_tile(sums[0], sums[1], own[d], load_right(others, first, d));
}

// sums[16, width] += tile[16, 16] times rows.
template <class T, int width>
__device__ __forceinline__ void add_rows(float (&sums)[width / 8][4], const float (&tile)[2][4], Rows<T, width> rows,
                                         int first) {
    const Left<T> left = left_of<T>(tile);
#pragma unroll
    for (int n = 0; n < width / 8; n += 2)
        multiply_add_tile(sums[n], sums[n + 1], left, load_right_across(rows, first, n * 8));
}

// How many blocks a multiprocessor should hold, which bounds the registers of a thread;
// queries of their own take more of those.
template <class T, int width>
constexpr int kBlocks = sizeof(T) == 2 && width <= 64 ? 2 : 1;
template <bool apart>
constexpr int kWarps = apart ? 4 : kMostWarps;  // 4: one for each scheduler, so that two blocks fit

// What every tile needs of the launch.
struct Scales {
    float exponent, kept;  // of scores, as powers of two; of gradients of probabilities that dropout kept

    __device__ __forceinline__ explicit Scales(const AttentionArguments& a)
        : exponent(a.scale * kLog2E), kept(a.keep_scale * a.scale) {}
};

// The gradient of 16 queries of a warp, at `row` in shared memory, from the keys there.
template <class T, int width>
__device__ __forceinline__ void add_keys(float (&sums)[width / 8][4], const Block<T, width>& block, int row, int keys,
                                         Scales scales) {
    const OwnRows<T, width> q(block.q, row), grad(block.grad, row);
    const QueryFacts facts[2] = {block.facts[row + threadIdx.x % 32 / 4], block.facts[row + threadIdx.x % 32 / 4 + 8]};
    for (int key = 0; key < keys; key += kTile) {
        float s[2][4] = {}, g[2][4] = {};
        multiply_rows(s, q, block.k, key);
        multiply_rows(g, grad, block.v, key);
        const uint32_t kept = block.bits.by_query(row, key);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const QueryFacts& of = facts[i / 2 % 2];
            const float factor = kept >> (8 * (i / 4 + i / 2 % 2 * 2) + i % 2) & 1 ? scales.kept : 0.0f;
            const bool real = key + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2 < keys;
            const float p = power_of_two(s[i / 4][i % 4] * scales.exponent - of.log_total);
            s[i / 4][i % 4] = real ? p * (g[i / 4][i % 4] * factor - of.shift) : 0.0f;
        }
        add_rows(sums, s, block.k, key);
    }
}

// The gradients of 16 keys of a warp and of their values, at `row`, from the queries there;
// the values' still without keep_scale.
template <class T, int width>
__device__ __forceinline__ void add_queries(float (&key_sums)[width / 8][4], float (&value_sums)[width / 8][4],
                                            const Block<T, width>& block, int row, int queries, Scales scales) {
    const OwnRows<T, width> k(block.k, row), v(block.v, row);
    for (int query = 0; query < queries; query += kTile) {
        float s[2][4] = {}, g[2][4] = {};
        multiply_rows(s, k, block.q, query);
        multiply_rows(g, v, block.grad, query);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint32_t kept = block.bits.by_key(query + 8 * h, row);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const QueryFacts of = block.facts[query + 8 * h + threadIdx.x % 4 * 2 + i % 2];
                const bool keep = kept >> (16 * (i % 2) + 8 * (i / 2)) & 1;
                const float p = power_of_two(s[h][i] * scales.exponent - of.log_total);
                s[h][i] = keep ? p : 0.0f;
                g[h][i] = p * (g[h][i] * (keep ? scales.kept : 0.0f) - of.shift);
            }
        }
        constexpr bool keys_first = sizeof(T) == 4;  // the order in which nothing is spilled
        if constexpr (keys_first) add_rows(key_sums, g, block.q, query);
        add_rows(value_sums, s, block.grad, query);
        if constexpr (!keys_first) add_rows(key_sums, g, block.q, query);
    }
}

// The tensors' places are worked out where they are needed: kept, they would take registers from the sums.
template <class T, int width>
__device__ __forceinline__ void start_keys(const Block<T, width>& block, const AttentionArguments& a, const Sequence& s,
                                           int first, int count) {
    const T* kv = static_cast<const T*>(a.kv);
    start_rows(block.k, key_rows<width>(kv, a, s, 0), first, count);
    start_rows(block.v, key_rows<width>(kv, a, s, 1), first, count);
}

// This lane's share of the sum over products of two rows, which four lanes go through together.
template <class T, int width>
__device__ __forceinline__ float dot_in_quad(const T* a, const T* b) {
    Packet<T> left[width / 32], right[width / 32];
#pragma unroll
    for (int i = 0; i < width / 32; ++i) {
        left[i] = reinterpret_cast<const Packet<T>*>(a)[i * 4 + threadIdx.x % 4];
        right[i] = reinterpret_cast<const Packet<T>*>(b)[i * 4 + threadIdx.x % 4];
    }
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < width / 4; ++i)
        total += to_float(left[i / 8].element[i % 8]) * to_float(right[i / 8].element[i % 8]);
    return total;
}

// Queries, their output's gradient and their facts; queries past `count` get probability 0.
template <class T, int width>
__device__ __forceinline__ void start_queries(const Block<T, width>& block, const AttentionArguments& a,
                                              const Sequence& s, int first, int count) {
    const auto outs = out_rows<width>(static_cast<const T*>(a.saved), a, s),
               grads = out_rows<width>(static_cast<const T*>(a.grad), a, s);
    start_rows(block.q, query_rows<width>(static_cast<const T*>(a.q), a, s), first, count);
    start_rows(block.grad, grads, first, count);
    for (int base = threadIdx.x / 32 * 8; base < tiles_of(count) * kTile; base += unkept(int(blockDim.x)) / 4) {
        const int row = base + threadIdx.x % 32 / 4;
        const float share = row < count ? dot_in_quad<T, width>(outs.row(first + row), grads.row(first + row)) : 0.0f;
        const float total = over_quad(share, [](float a, float b) { return a + b; });
        if (threadIdx.x % 4 == 0)
            block.facts[row] = {
                row < count ? a.lse[int64_t(s.queries.first + first + row) * a.heads + s.head] * kLog2E : INFINITY,
                total * a.scale};
    }
}

template <class T, int width, bool apart>
__global__ void __launch_bounds__(32 * kWarps<apart>, (kBlocks<T, width>))
    backward_kernel(const __grid_constant__ AttentionArguments a, int capacity) {
    const Sequence s = this_sequence<apart>(a);
    const Block<T, width> block(a, capacity);
    const Scales scales(a);
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, own = warps * kTile;
    const int queries = s.queries.length, keys = s.keys.length;
    const bool whole = queries <= capacity && keys <= capacity;
    if (whole) {
        start_queries(block, a, s, 0, queries);
        start_keys(block, a, s, 0, keys);
        block.bits.draw_all(a, s, 0, queries, 0, keys);
        wait_for_copies();
        __syncthreads();
    }
    // Tiles of keys, the longer work, come first. Where rows are read in chunks,
    // all warps own keys, or all own queries.
    const auto tiles = [&](int rows) { return whole ? tiles_of(rows) : (tiles_of(rows) + warps - 1) / warps * warps; };
    const int key_tiles = tiles(keys), all_tiles = key_tiles + tiles(queries);
    for (int base = 0; base < all_tiles; base += warps) {
        const int number = base + warp;
        if (number >= all_tiles) break;
        const bool by_key = number < key_tiles;
        const int own_rows = by_key ? keys : queries, other_rows = by_key ? queries : keys;
        const int first = (by_key ? number : number - key_tiles) * kTile, group = first - warp * kTile;
        const int row = whole ? first : warp * kTile, count = own_rows - first;
        float key_sums[width / 8][4] = {}, value_sums[width / 8][4] = {};
        for (int chunk = 0; chunk < other_rows; chunk += capacity) {
            const int others = min(capacity, other_rows - chunk), mine = min(own, own_rows - group);
            if (!whole) {
                __syncthreads();
                if (!by_key || chunk == 0) start_keys(block, a, s, by_key ? group : chunk, by_key ? mine : others);
                if (by_key || chunk == 0) start_queries(block, a, s, by_key ? chunk : group, by_key ? others : mine);
                block.bits.draw_all(a, s, by_key ? chunk : group, by_key ? others : mine, by_key ? group : chunk,
                                    by_key ? mine : others);
                wait_for_copies();
                __syncthreads();
            }
            if (count <= 0) continue;
            if (by_key) add_queries(key_sums, value_sums, block, row, others, scales);
            else add_keys(key_sums, block, row, others, scales);
        }
        if (count <= 0) continue;
        const auto result = [&](int part) { return key_rows<width>(static_cast<T*>(a.grad_kv), a, s, part); };
        if (by_key)
            store_tile<T, width>(value_sums, {a.keep_scale, a.keep_scale}, result(1).row(first), result(1).stride,
                                 count);
        const auto target = by_key ? result(0) : query_rows<width>(static_cast<T*>(a.grad_q), a, s);
        store_tile<T, width>(key_sums, {1.0f, 1.0f}, target.row(first), target.stride, count);
    }
    zero_rows<T, width>(query_rows<width>(static_cast<T*>(a.grad_q), a, s), queries, s.queries.unused);
    for (int part = 0; part < 2; ++part)
        zero_rows<T, width>(key_rows<width>(static_cast<T*>(a.grad_kv), a, s, part), keys, s.keys.unused);
}

}  // namespace

int attention_backward(const AttentionArguments& a, void* stream) {
    return for_type_and_width(a, [&](auto element, auto width, auto apart) -> int {
        using T = decltype(element);
        AttentionLaunch plan;
        const int bytes = Rows<T, width>::kStride * sizeof(T) + sizeof(QueryFacts);
        if (const int status = plan_attention(a, bytes, kWarps<apart>, plan)) return status;
        return launch_kernel(backward_kernel<T, width, apart>, unsigned((a.samples + 1) * a.heads), 32 * plan.warps,
                             plan.shared_bytes, static_cast<cudaStream_t>(stream), a, plan.capacity);
    });
}

}  // namespace memofast::cuda
