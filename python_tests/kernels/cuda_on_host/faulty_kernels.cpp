// Kernels with one fault each, and a sound one; prints what running them gives. See test_cuda_on_host_faults.py.
#include "cuda/launch.cuh"

using namespace memofast::cuda;

__global__ void reverse(int* values, bool with_barrier) {
    int* shared = shared_memory<int>();
    shared[threadIdx.x] = values[threadIdx.x];
    if (with_barrier) __syncthreads();
    values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void leave_before_shuffle(int* values) {
    if (threadIdx.x == 3) return;
    values[threadIdx.x] = __shfl_xor_sync(~0u, values[threadIdx.x], 1);
}

__global__ void mix_operations(int* values) {
    if (threadIdx.x < 16) __syncwarp();
    else values[threadIdx.x] = __shfl_xor_sync(~0u, values[threadIdx.x], 1);
}

__global__ void write_past_the_end(int* values) {
    shared_memory<int>()[blockDim.x + threadIdx.x] = values[threadIdx.x];
}

int main() {
    int values[64];
    for (int i = 0; i < 64; ++i) values[i] = i;
    const auto run = [&](const char* name, auto kernel, auto... more) {
        const int error = launch_kernel(kernel, 1, 64, 64 * sizeof(int), nullptr, values, more...);
        printf("%s %d %d\n", name, error, values[0]);
        printf("after_%s %d 0\n", name, cudaGetLastError());
    };
    run("sound", reverse, true);
    run("no_barrier", reverse, false);
    run("leave", leave_before_shuffle);
    run("mix", mix_operations);
    run("past", write_past_the_end);
    cudaSetDevice(1);
    run("elsewhere", reverse, true);
}
