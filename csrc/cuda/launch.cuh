// Starting a kernel through the runtime's function, so that the sources hold no <<<>>> and any C++ compiler reads them.
#pragma once

#include <cuda_runtime.h>

#include "variant.h"

namespace memofast::cuda {

template <class T>
struct Same {
    using type = T;
};

// An error as it is, forgotten by the runtime, which would tell it again of a later call.
inline int told_once(cudaError_t error) {
    if (error) cudaGetLastError();
    return error;
}

// What a block of the current device can have.
inline int most_shared_bytes(int& bytes) {
    int device = 0;
    if (const int error = told_once(cudaGetDevice(&device))) return error;
    return told_once(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
}

template <class... Parameters>
int launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                  typename Same<Parameters>::type... arguments) {
    constexpr size_t always = 48 * 1024;  // more shared memory than this is had by asking
    if (shared_bytes > always) {
        int most = 0;
        if (const int error = most_shared_bytes(most)) return error;
        if (shared_bytes > size_t(most)) return kTooLittleShared;
        // always for the most there is: a smaller bound could be that of another thread's launch
        if (const int error =
                told_once(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most)))
            return error;
    }
    void* addresses[] = {&arguments...};
    return told_once(cudaLaunchKernel(kernel, grid, block, addresses, shared_bytes, stream));
}

// The dynamic shared memory of the block.
template <class T>
__device__ T* shared_memory() {
#ifdef __NVCC__
    extern __shared__ __align__(128) unsigned char block_memory[];
    return reinterpret_cast<T*>(block_memory);
#else
    return reinterpret_cast<T*>(cuda_on_host::shared_memory);
#endif
}

}  // namespace memofast::cuda
