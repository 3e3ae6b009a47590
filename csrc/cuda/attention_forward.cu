// Attention forward on a GPU: each warp owns 16 queries and goes through the keys with a running softmax, 64 at a time.
// Memory: queries, keys and values are read once, outputs and one number per row are written.
#include "cuda/attention.cuh"

namespace memofast::cuda {
namespace {

template <class T, int width>
using Rows = SharedRows<T, width, 3>;  // queries, keys, values

constexpr int kKeyTiles = 4, kKeys = kKeyTiles * kTile;  // of one step of the running softmax

// How many blocks a multiprocessor should hold, which bounds the registers of a thread;
// before Hopper shared memory holds two.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kBlocksOfNarrowHeads = 2;
#else
constexpr int kBlocksOfNarrowHeads = 3;
#endif
template <class T, int width, bool apart>
constexpr int kBlocks = sizeof(T) == 2 && width <= 64 ? (apart ? 2 : kBlocksOfNarrowHeads) : 1;

// 16 queries of a warp: of rows g and g + 8 the largest score so far, the sum of exponentials, and the sums of values.
template <int width>
struct Attended {
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, values[width / 8][4] = {};
};

// Takes up to 64 keys more of the `keys` that are left from row `row` of shared memory on.
template <class T, int width>
__device__ __forceinline__ void attend(Attended<width>& o, Rows<T, width> q, Rows<T, width> k, Rows<T, width> v,
                                       const KeptBits& bits, int query_row, int row, int keys, float scale) {
    const int column = threadIdx.x % 4 * 2, tiles = tiles_of(keys);
    float s[kKeyTiles][2][4] = {};
#pragma unroll
    for (int d = 0; d < width; d += 16) {
        const Left<T> left = load_left(q, query_row, d);
#pragma unroll
        for (int j = 0; j < kKeyTiles; ++j)
            if (j < tiles) multiply_add_tile(s[j][0], s[j][1], left, load_right(k, row + j * kTile, d));
    }
    float largest[2] = {o.largest[0], o.largest[1]};
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float& score = s[j][i / 4][i % 4];
            score = j * kTile + i / 4 * 8 + column + i % 2 < keys ? score * scale : -INFINITY;
            largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], score);
        }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        largest[half] = over_quad(largest[half], [](float a, float b) { return fmaxf(a, b); });
        const float shrink = power_of_two(o.largest[half] - largest[half]);
        o.largest[half] = largest[half];
        o.total[half] *= shrink;
#pragma unroll
        for (int n = 0; n < width / 8; ++n) {
            o.values[n][2 * half] *= shrink;
            o.values[n][2 * half + 1] *= shrink;
        }
    }
#pragma unroll
    for (int j = 0; j < kKeyTiles; ++j) {
        if (j >= tiles) break;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float& p = s[j][i / 4][i % 4];
            p = power_of_two(p - largest[i / 2 % 2]);
            o.total[i / 2 % 2] += p;
        }
        const uint32_t kept = bits.by_query(query_row, row + j * kTile);
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (!(kept >> (8 * (i / 4 + i / 2 % 2 * 2) + i % 2) & 1)) s[j][i / 4][i % 4] = 0.0f;
        const Left<T> left = left_of<T>(s[j]);
#pragma unroll
        for (int n = 0; n < width / 8; n += 2)
            multiply_add_tile(o.values[n], o.values[n + 1], left, load_right_across(v, row + j * kTile, n * 8));
    }
}

template <class T, int width>
__device__ __forceinline__ void finish(Attended<width>& o, const AttentionArguments& a, const Sequence& s, int query) {
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = over_quad(o.total[half], [](float a, float b) { return a + b; });
        const int row = query + threadIdx.x % 32 / 4 + 8 * half;
        factor[half] = a.keep_scale / total;
        if (threadIdx.x % 4 == 0 && row < s.queries.length)
            a.lse[int64_t(s.queries.first + row) * a.heads + s.head] = o.largest[half] * kLn2 + logf(total);
    }
    const HeadRows<T> out = out_rows<width>(static_cast<T*>(a.out), a, s);
    store_tile<T, width>(o.values, factor, out.row(query), out.stride, s.queries.length - query);
}

template <class T, int width, bool apart>
__global__ void __launch_bounds__(32 * kMostWarps, (kBlocks<T, width, apart>))
    forward_kernel(const __grid_constant__ AttentionArguments a, int capacity) {
    const Sequence s = this_sequence<apart>(a);
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int queries = s.queries.length, keys = s.keys.length;
    const bool whole = queries <= capacity && keys <= capacity;
    // softmax steps are the same for any capacity
    const int step = whole || capacity < kKeys ? capacity : capacity / kKeys * kKeys;
    const Rows<T, width> q{shared_memory<T>()}, k{q.at + width}, v{k.at + width};
    const KeptBits bits{a.threshold ? reinterpret_cast<uint8_t*>(q.row(capacity)) : nullptr, capacity / 8};
    const T* kv = static_cast<const T*>(a.kv);
    for (int first = 0; first < queries; first += warps * kTile) {
        const int query = first + warp * kTile;
        Attended<width> o;
        for (int chunk = 0; chunk < keys; chunk += step) {
            const int count = min(step, keys - chunk);
            if (!whole || first == 0) {
                __syncthreads();
                const int count_q = whole ? queries : min(warps * kTile, queries - first);
                if (chunk == 0) start_rows(q, query_rows<width>(static_cast<const T*>(a.q), a, s), first, count_q);
                start_rows(k, key_rows<width>(kv, a, s, 0), chunk, count);
                start_rows(v, key_rows<width>(kv, a, s, 1), chunk, count);
                bits.draw_all(a, s, first, count_q, chunk, count);
                wait_for_copies();
                __syncthreads();
            }
            for (int row = 0; row < count && query < queries; row += kKeys)
                attend(o, q, k, v, bits, whole ? query : warp * kTile, row, count - row, a.scale * kLog2E);
        }
        if (query < queries) finish<T>(o, a, s, query);
    }
    zero_rows<T, width>(out_rows<width>(static_cast<T*>(a.out), a, s), queries, s.queries.unused);
    for (int row = threadIdx.x; row < s.queries.unused; row += blockDim.x)
        a.lse[int64_t(s.queries.first + queries + row) * a.heads + s.head] = 0.0f;
}

}  // namespace

int attention_forward(const AttentionArguments& a, void* stream) {
    return for_type_and_width(a, [&](auto element, auto width, auto apart) -> int {
        using T = decltype(element);
        AttentionLaunch plan;
        if (const int status = plan_attention(a, Rows<T, width>::kStride * sizeof(T), kMostWarps, plan)) return status;
        return launch_kernel(forward_kernel<T, width, apart>, unsigned((a.samples + 1) * a.heads), 32 * plan.warps,
                             plan.shared_bytes, static_cast<cudaStream_t>(stream), a, plan.capacity);
    });
}

}  // namespace memofast::cuda
