// One source, several builds: every file under cpu/ and cuda/ is compiled with MEMOFAST_VARIANT set to portable, avx2,
// avx512 or cuda, and keeps all its code in that namespace, so that the linker can never mix instruction sets.
// For the same reason files under cpu/ and rows/ use no standard-library templates that may be emitted out of line.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MEMOFAST_FUNCTION __host__ __device__ __forceinline__
#else
#define MEMOFAST_FUNCTION inline __attribute__((always_inline))
#endif

namespace memofast {

// Error codes that entry points return; 0 is success. Positive codes are cudaError_t values.
enum Status : int {
    kSuccess = 0,
    kNotBuilt = -1,       // the package was built without this backend
    kBadOffsets = -2,     // offsets do not start at 0, decrease, or exceed the rows given
    kBadIndex = -3,       // an id or source row lies outside its table
    kMisaligned = -4,     // a pointer is not aligned as the kernel needs
    kUnsupported = -5,    // a shape this kernel does not cover
    kOutOfMemory = -6,
    kNotAsNeeded = -7,    // a tensor's type, shape, strides or device
    kTooLittleShared = -8,  // the shape needs more shared memory than a block of this GPU can have
    kBadNumber = -9,      // a number of a policy or an option that no kernel can work with
};

enum class Isa { portable, avx2, avx512 };

// The instruction set in use: the best one of this CPU, or what MEMOFAST_ISA names.
Isa isa();

// Element types as the Python side names them.
enum class Type : int { float32 = 0, bfloat16 = 1, float16 = 2 };

}  // namespace memofast

// MEMOFAST_DECLARE(int f(const Arguments&)) declares f in the namespace of every CPU variant;
// MEMOFAST_DISPATCH(f, arguments) calls the one for this machine.
#if (defined(__x86_64__) || defined(_M_X64)) && !defined(MEMOFAST_ONLY_PORTABLE)
#define MEMOFAST_DECLARE(...)                                  \
    namespace portable { __VA_ARGS__; }                        \
    namespace avx2 { __VA_ARGS__; }                            \
    namespace avx512 { __VA_ARGS__; }
#define MEMOFAST_DISPATCH(name, ...)                                                     \
    (::memofast::isa() == ::memofast::Isa::avx512 ? ::memofast::avx512::name(__VA_ARGS__) \
     : ::memofast::isa() == ::memofast::Isa::avx2 ? ::memofast::avx2::name(__VA_ARGS__)   \
                                                  : ::memofast::portable::name(__VA_ARGS__))
#else
#define MEMOFAST_DECLARE(...) \
    namespace portable { __VA_ARGS__; }
#define MEMOFAST_DISPATCH(name, ...) ::memofast::portable::name(__VA_ARGS__)
#endif
