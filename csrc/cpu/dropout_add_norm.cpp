// LayerNorm(residual + dropout(x + bias)) on the CPU. A row lies in L1 between its passes:
// memory sees each tensor once.
#include "rows/dropout_add_norm.h"

#include "cpu/row_chunks.h"

namespace memofast::MEMOFAST_VARIANT {
namespace {

struct Bounds {
    int64_t first, last;
};

Bounds bounds(int64_t chunk, int64_t rows) {
    const int64_t first = chunk * kRowsPerChunk;
    return {first, first + kRowsPerChunk < rows ? first + kRowsPerChunk : rows};
}

template <class T, class B>
NormRow<T, B> row_at(const DropoutAddNormArguments& a, const Dropout& dropout, const SampleCursor& cursor,
                     int64_t row) {
    const T *x = static_cast<const T*>(a.x), *residual = static_cast<const T*>(a.residual);
    const int64_t key = a.threshold ? a.sample_keys[cursor.sample] : 0;
    return {x + row * a.width, residual + row * a.width, static_cast<const B*>(a.bias), a.gamma, a.beta, dropout, key,
            cursor.position(row), a.width};
}

Dropout dropout_of(const DropoutAddNormArguments& a) {
    return {a.threshold ? stream_key(a.rng, 1, a.site) : Key{0, 0}, a.threshold, a.scale};
}

template <class T, class B>
void forward_chunk(const DropoutAddNormArguments& a, const Dropout& dropout, int64_t chunk) {
    alignas(64) float scratch[kMaxWidth];
    MemoryRow<OneLane> z{scratch};
    const Bounds b = bounds(chunk, a.rows);
    SampleCursor cursor(a.offsets, a.samples, a.rows, b.first);
    for (int64_t row = b.first; row < b.last; ++row) {
        T* out = static_cast<T*>(a.out) + row * a.width;
        if (cursor.inside(row)) {
            norm_row(OneLane{}, row_at<T, B>(a, dropout, cursor, row), z, a.eps, out, a.statistics + 2 * row);
        } else {
            memset(out, 0, a.width * sizeof(T));
            a.statistics[2 * row] = a.statistics[2 * row + 1] = 0.0f;
        }
    }
}

template <class T, class B>
void backward_chunk(const DropoutAddNormArguments& a, const Dropout& dropout, int64_t chunk) {
    alignas(64) float scratch[3][kMaxWidth], sums[3][kMaxWidth];
    MemoryRow<OneLane> normal{scratch[0]}, scaled{scratch[1]}, factors{scratch[2]};
    const int kinds = a.bias ? 3 : 2;
    for (int i = 0; i < kinds; ++i) memset(sums[i], 0, normal.floats_per_row(a.width) * sizeof(float));
    const Bounds b = bounds(chunk, a.rows);
    SampleCursor cursor(a.offsets, a.samples, a.rows, b.first);
    for (int64_t row = b.first; row < b.last; ++row) {
        const int64_t at = row * a.width;
        T *grad_x = a.grad_x ? static_cast<T*>(a.grad_x) + at : nullptr,
          *grad_residual = static_cast<T*>(a.grad_residual) + at;
        if (cursor.inside(row)) {
            norm_row_backward(OneLane{}, row_at<T, B>(a, dropout, cursor, row), a.statistics + 2 * row,
                              static_cast<const T*>(a.grad) + at, normal, scaled, factors, grad_x, grad_residual,
                              sums[0], sums[1], a.bias ? sums[2] : nullptr);
        } else {
            memset(grad_residual, 0, a.width * sizeof(T));
            if (grad_x) memset(grad_x, 0, a.width * sizeof(T));
        }
    }
    for (int i = 0; i < kinds; ++i)
        memcpy(a.partials + (chunk * kinds + i) * a.width, sums[i], a.width * sizeof(float));
}

template <class T, class B>
int run(const DropoutAddNormArguments& a, bool backward) {
    if (a.width > kMaxWidth) return kUnsupported;
    if (!good_offsets(a.offsets, a.samples, a.rows)) return kBadOffsets;
    const int64_t chunks = (a.rows + kRowsPerChunk - 1) / kRowsPerChunk;
    const Dropout dropout = dropout_of(a);
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        if (backward) backward_chunk<T, B>(a, dropout, chunk);
        else forward_chunk<T, B>(a, dropout, chunk);
    }
    if (backward) add_partials(a.partials, chunks, int64_t{a.bias ? 3 : 2} * a.width, a.sums);
    return kSuccess;
}

int run_typed(const DropoutAddNormArguments& a, bool backward) {
    if (a.type == Type::float32) return run<float, float>(a, backward);
    if (a.type != Type::bfloat16) return kUnsupported;
    return a.bias_type == Type::float32 ? run<BFloat16, float>(a, backward) : run<BFloat16, BFloat16>(a, backward);
}

}  // namespace

int dropout_add_norm(const DropoutAddNormArguments& a) { return run_typed(a, false); }
int dropout_add_norm_backward(const DropoutAddNormArguments& a) { return run_typed(a, true); }

}  // namespace memofast::MEMOFAST_VARIANT
