// GELU(x + bias) on the CPU: threads take chunks of 64 rows and walk whole rows, or stretches of very wide ones, so that memory is read in
// order; the stretch's bias and bias gradient stay in L1.
#include "rows/bias_gelu.h"

#include "cpu/row_chunks.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kStretch = 4096;

template <class T, class B>
int run(const BiasGeluArguments& a, bool backward) {
    constexpr int n = OneLane::kChunk;
    const int64_t chunks = (a.rows + kRowsPerChunk - 1) / kRowsPerChunk;
    const T *x = static_cast<const T*>(a.x), *grad = static_cast<const T*>(a.grad);
    T *out = static_cast<T*>(a.out), *grad_x = static_cast<T*>(a.grad_x);
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * kRowsPerChunk, end = first + kRowsPerChunk, last = end < a.rows ? end : a.rows;
        for (int64_t start = 0; start < a.width; start += kStretch) {
            const int width = int(a.width - start < kStretch ? a.width - start : kStretch), tiles = (width + n - 1) / n;
            alignas(64) float bias[kStretch], sums[kStretch] = {};
            for (int k = 0; k < tiles; ++k) {
                const Span span = OneLane::span(k, width);
                load<n>(static_cast<const B*>(a.bias) + start + span.first, span.count, bias + span.first);
            }
            for (int64_t row = first; row < last; ++row) {
                for (int k = 0; k < tiles; ++k) {
                    const Span span = OneLane::span(k, width);
                    const int64_t at = row * a.width + start + span.first;
                    const float* own = bias + span.first;
                    if (!backward) gelu_chunk<OneLane>(x + at, own, span.count, out + at);
                    else gelu_chunk_backward<OneLane>(x + at, own, grad + at, span.count, grad_x + at, sums + span.first);
                }
            }
            if (backward) memcpy(a.partials + chunk * a.width + start, sums, width * sizeof(float));
        }
    }
    if (backward) add_partials(a.partials, chunks, a.width, a.grad_bias);
    return kSuccess;
}

int run_typed(const BiasGeluArguments& a, bool backward) {
    if (a.type == Type::float32) return run<float, float>(a, backward);
    if (a.type != Type::bfloat16) return kUnsupported;
    return a.bias_type == Type::float32 ? run<BFloat16, float>(a, backward) : run<BFloat16, BFloat16>(a, backward);
}

}  // namespace

int bias_gelu(const BiasGeluArguments& a) { return run_typed(a, false); }
int bias_gelu_backward(const BiasGeluArguments& a) { return run_typed(a, true); }

}  // namespace memofast::MEMOFAST_VARIANT
