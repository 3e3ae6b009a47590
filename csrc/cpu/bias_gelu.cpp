// GELU(x + bias) on the CPU: threads take chunks of 64 rows and walk whole rows, or stretches of very wide ones, so
// that memory is read in order; the stretch's bias and bias gradient stay in L1.
#include "rows/bias_gelu.h"

#include "cpu/row_chunks.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

constexpr int kStretch = 4096;

// The CPU's own prefetching does not keep up with two streams (measured on Zen 4).
MEMOFAST_FUNCTION void fetch_ahead(const void* address) {
    __builtin_prefetch(static_cast<const char*>(address) + 2048);
}

template <class T, class B>
void walk(const BiasGeluArguments& a, bool backward, int64_t chunk, int64_t start) {
    const int64_t first = chunk * kRowsPerChunk, end = first + kRowsPerChunk, last = end < a.rows ? end : a.rows;
    const int width = int(a.width - start < kStretch ? a.width - start : kStretch), whole = width / kPacket * kPacket;
    Unit bias[kStretch / kLanes], sums[kStretch / kLanes];
    for (int c = 0; c < width; c += kPacket) {
        load_packet(static_cast<const B*>(a.bias) + start + c, width - c, bias + c / kLanes);
        if (sizeof(B) == sizeof(float)) deal<T>(bias + c / kLanes);
    }
    if (backward) memset(sums, 0, sizeof sums);
    for (int64_t row = first; row < last; ++row) {
        const int64_t from = row * a.width + start;
        const T *x = static_cast<const T*>(a.x) + from, *grad = static_cast<const T*>(a.grad) + from;
        T *out = static_cast<T*>(a.out) + from, *grad_x = static_cast<T*>(a.grad_x) + from;
        const auto packet = [&](int c, int count) {
            const Unit* own = bias + c / kLanes;
            if (!backward) gelu_packet(x + c, own, count, out + c);
            else gelu_packet_backward(x + c, own, grad + c, count, grad_x + c, sums + c / kLanes);
        };
        for (int c = 0; c < whole; c += kPacket) {
            fetch_ahead(x + c);
            if (backward) fetch_ahead(grad + c);
            packet(c, kPacket);
        }
        if (whole < width) packet(whole, width - whole);
    }
    for (int c = 0; backward && c < width; c += kPacket) {
        undeal<T>(sums + c / kLanes);
        store_packet(a.partials + chunk * a.width + start + c, width - c, sums + c / kLanes);
    }
}

template <class T, class B>
int run(const BiasGeluArguments& a, bool backward) {
    const int64_t chunks = (a.rows + kRowsPerChunk - 1) / kRowsPerChunk;
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int64_t start = 0; start < a.width; start += kStretch) walk<T, B>(a, backward, chunk, start);
    if (backward) add_partials(a.partials, chunks, a.width, a.grad_bias);
    return kSuccess;
}

template <class T>
int run_bias(const BiasGeluArguments& a, bool backward) {
    return a.bias_type == Type::float32 ? run<T, float>(a, backward) : run<T, BFloat16>(a, backward);
}

int run_typed(const BiasGeluArguments& a, bool backward) {
    if (a.type == Type::float32) return run<float, float>(a, backward);
    if (a.type != Type::bfloat16) return kUnsupported;
#if defined(__AVX512F__)
    if (__builtin_cpu_supports("avx512bf16")) return run_bias<NativeBFloat16>(a, backward);
#endif
    return run_bias<BFloat16>(a, backward);
}

}  // namespace

int bias_gelu(const BiasGeluArguments& a) { return run_typed(a, false); }
int bias_gelu_backward(const BiasGeluArguments& a) { return run_typed(a, true); }

}  // namespace memofast::MEMOFAST_VARIANT
