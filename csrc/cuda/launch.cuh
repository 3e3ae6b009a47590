// Starting a kernel through the runtime's function, so that the sources hold no <<<>>> and any C++ compiler reads them.
#pragma once

#include <cuda_runtime.h>

#include "variant.h"

namespace memofast::cuda {

template <class T>
struct Same {
    using type = T;
};

template <class... Parameters>
int launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                  typename Same<Parameters>::type... arguments) {
    constexpr size_t always = 48 * 1024;  // more shared memory than this is had by asking
    if (shared_bytes > always) {
        const int error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
        if (error) cudaGetLastError();  // it is told once
        if (error) return error == cudaErrorInvalidValue ? int(kTooLittleShared) : error;
    }
    void* addresses[] = {&arguments...};
    return cudaLaunchKernel(kernel, grid, block, addresses, shared_bytes, stream);
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
