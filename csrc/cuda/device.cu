#include "device.h"

#include <cuda_runtime.h>

namespace memofast::cuda {

const char* error_name(int status) { return cudaGetErrorName(cudaError_t(status)); }

const char* error_text(int status) { return cudaGetErrorString(cudaError_t(status)); }

}  // namespace memofast::cuda
