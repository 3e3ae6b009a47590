#include "device.h"

#include <cuda_runtime.h>

namespace memofast::cuda {

const char* error_name(int status) { return cudaGetErrorName(cudaError_t(status)); }

const char* error_text(int status) { return cudaGetErrorString(cudaError_t(status)); }

CurrentDevice::CurrentDevice(int device) {
    int current = 0;
    status_ = cudaGetDevice(&current);
    if (status_ || current == device) return;
    status_ = cudaSetDevice(device);
    if (!status_) before_ = current;
}

CurrentDevice::~CurrentDevice() {
    if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace memofast::cuda
