// The only file that knows Python: pointers, sizes and a stream come in as integers, an error code goes out.
#include <pybind11/pybind11.h>

#include "variant.h"

namespace py = pybind11;
using namespace memofast;

namespace {

const char* isa_name() {
    switch (isa()) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
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
}
