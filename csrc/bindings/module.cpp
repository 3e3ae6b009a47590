// The extension: pointers, sizes and a stream come in as integers, an error code goes out.
#include "bindings/tensors.h"

namespace {

const char* isa_name() {
    switch (memofast::isa()) {
        case memofast::Isa::avx512: return "avx512";
        case memofast::Isa::avx2: return "avx2";
        default: return "portable";
    }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "memofast's kernels; call them through memofast.ops.";
    m.attr("source_digest") = MEMOFAST_SOURCE_DIGEST;
    m.attr("compiler") = MEMOFAST_COMPILER;
    m.attr("cuda_version") = MEMOFAST_CUDA_VERSION;
    m.attr("cuda_archs") = MEMOFAST_CUDA_ARCHS;
    m.attr("isa") = isa_name();
    memofast::bind_tensors(m);
    memofast::bind_draws(m);
    memofast::bind_masks(m);
    memofast::bind_rows(m);
    memofast::bind_attention(m);
    memofast::bind_stores(m);
}
