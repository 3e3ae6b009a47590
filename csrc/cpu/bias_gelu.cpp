// GELU(x + bias) on the CPU: threads take chunks of 64 rows and walk them in column chunks, whose bias and bias gradient stay in L1.
#include "rows/bias_gelu.h"

#include "cpu/row_chunks.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

template <class T, class B>
int run(const BiasGeluArguments& a, bool backward) {
    constexpr int n = OneLane::kChunk;
    const int64_t chunks = (a.rows + kRowsPerChunk - 1) / kRowsPerChunk, tiles = (a.width + n - 1) / n;
    const T *x = static_cast<const T*>(a.x), *grad = static_cast<const T*>(a.grad);
    T *out = static_cast<T*>(a.out), *grad_x = static_cast<T*>(a.grad_x);
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * kRowsPerChunk, end = first + kRowsPerChunk, last = end < a.rows ? end : a.rows;
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const Span span = OneLane::span(int(tile), a.width);
            alignas(64) float bias[n], sums[n] = {};
            load<n>(static_cast<const B*>(a.bias) + span.first, span.count, bias);
            for (int64_t row = first; row < last; ++row) {
                const int64_t at = row * a.width + span.first;
                if (backward) gelu_chunk_backward<OneLane>(x + at, bias, grad + at, span.count, grad_x + at, sums);
                else gelu_chunk<OneLane>(x + at, bias, span.count, out + at);
            }
            if (backward) memcpy(a.partials + chunk * a.width + span.first, sums, span.count * sizeof(float));
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
