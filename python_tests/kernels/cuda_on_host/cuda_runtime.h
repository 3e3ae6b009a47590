// What our kernels use of CUDA, run by the host: every thread of a block is a fiber, blocks follow one another. A
// barrier or a warp-wide exchange hands over to the next fiber; between two of them a thread runs alone, so that a
// missing barrier shows as a result that depends on the order of threads (MEMOFAST_THREAD_ORDER=reverse). A kernel
// that waits for threads which never come, mixes warp-wide operations, or writes past its dynamic shared memory ends
// with an error. Shared memory starts as NaN. The host is device 0; which device is current stands in
// MEMOFAST_CURRENT_DEVICE, and nothing runs where it is another one.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __shared__ thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(8) uint2 {
    unsigned x, y;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct alignas(8) float2 {
    float x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaErrorInvalidValue = 1, cudaErrorInvalidDevice = 101, cudaErrorInvalidResourceHandle = 400,
              cudaErrorLaunchFailure = 719, cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
              cudaDevAttrMaxSharedMemoryPerBlockOptin = 97;

namespace cuda_on_host {

constexpr int kDevices = 2;
inline cudaError_t last_error = 0;

inline int current_device() {
    const char* device = getenv("MEMOFAST_CURRENT_DEVICE");
    return device ? atoi(device) : 0;
}

}  // namespace cuda_on_host

inline cudaError_t cudaGetLastError() { return std::exchange(cuda_on_host::last_error, 0); }
inline cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t) {
    if (cuda_on_host::current_device() != 0) return cuda_on_host::last_error = cudaErrorInvalidResourceHandle;
    memset(target, value, bytes);
    return 0;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = cuda_on_host::current_device();
    return 0;
}
inline cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= cuda_on_host::kDevices) return cuda_on_host::last_error = cudaErrorInvalidDevice;
    setenv("MEMOFAST_CURRENT_DEVICE", device ? "1" : "0", 1);
    return 0;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
    const char* bytes = getenv("MEMOFAST_SHARED_BYTES");
    *value = bytes ? atoi(bytes) : 227 * 1024;
    return 0;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, int, int bytes) {
    int most;
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    return bytes > most ? cuda_on_host::last_error = cudaErrorInvalidValue : 0;
}
inline const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorInvalidValue ? "cudaErrorInvalidValue"
        : error == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure"
                                          : "cudaErrorUnknown";
}
inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorLaunchFailure ? "unspecified launch failure" : "as named";
}

namespace cuda_on_host {

constexpr unsigned kSharedBytes = 227 * 1024, kGuardBytes = 1024, kStackBytes = 128 * 1024, kSlotBytes = 64;

struct Barrier {
    unsigned expected = 0, arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    unsigned exchanges = 0;
    const char* operation = nullptr;
    alignas(16) unsigned char slots[2][32][kSlotBytes];
};

struct Copy {  // started by cp.async; shared memory sees it when the thread waits
    void* target;
    const void* source;
};

struct Thread {
    uint3 index;
    unsigned number;
    Warp* warp;
    Barrier* waits_for = nullptr;
    unsigned generation = 0, exchanges = 0;
    bool started = false, done = false;
    std::vector<Copy> copies;
    jmp_buf where;
    ucontext_t start;
};

inline Thread* current;
inline uint3 block;
inline dim3 block_size, grid_size;
inline Barrier block_barrier;
inline jmp_buf scheduler;
inline const std::function<void()>* body;
inline const char* fault;
alignas(128) inline unsigned char shared_memory[kSharedBytes + kGuardBytes];

inline void give_way() {
    if (_setjmp(current->where) == 0) _longjmp(scheduler, 1);
}

inline void wait(Barrier& barrier) {
    if (++barrier.arrived == barrier.expected) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    current->waits_for = &barrier;
    current->generation = barrier.generation;
    give_way();
    current->waits_for = nullptr;
}

// Every lane of the warp hands in a value and gets all of them: element [lane]. Two buffers in turn,
// as a lane cannot be two ahead.
template <class T>
const unsigned char (*exchange(const char* operation, const T& value))[kSlotBytes] {
    static_assert(sizeof(T) <= kSlotBytes);
    Warp& warp = *current->warp;
    if (warp.barrier.arrived == 0) warp.operation = operation;
    if (strcmp(warp.operation, operation) != 0) fault = "lanes of a warp meet in different operations";
    auto* slots = warp.slots[current->exchanges++ % 2];
    memcpy(slots[current->number % 32], &value, sizeof value);
    wait(warp.barrier);
    return slots;
}

template <class T>
T taken(const unsigned char (*slots)[kSlotBytes], int lane) {
    T value;
    memcpy(&value, slots[lane], sizeof value);
    return value;
}

inline void enter() {
    (*body)();
    current->done = true;
    _longjmp(scheduler, 1);
}

inline void resume(Thread& thread) {
    current = &thread;
    if (_setjmp(scheduler) != 0) return;
    if (thread.started) _longjmp(thread.where, 1);
    thread.started = true;
    setcontext(&thread.start);
}

inline void run_block(std::vector<unsigned char>& stacks, bool reverse, size_t shared) {
    const unsigned count = block_size.x * block_size.y * block_size.z;
    std::vector<Warp> warps((count + 31) / 32);
    std::vector<Thread> threads(count);
    memset(shared_memory, 0xFF, sizeof shared_memory);
    block_barrier = {count, 0, block_barrier.generation};
    for (unsigned i = 0; i < count; ++i) {
        Thread& thread = threads[i];
        thread.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
        thread.number = i;
        thread.warp = &warps[i / 32];
        ++thread.warp->barrier.expected;
        getcontext(&thread.start);
        thread.start.uc_stack.ss_sp = &stacks[size_t(i) * kStackBytes];
        thread.start.uc_stack.ss_size = kStackBytes;
        makecontext(&thread.start, enter, 0);
    }
    for (unsigned left = count, progress = 1; left && !fault;) {
        if (!progress) fault = "threads wait at a barrier that others never reach";
        progress = 0;
        for (unsigned i = 0; i < count && !fault; ++i) {
            Thread& thread = threads[reverse ? count - 1 - i : i];
            if (thread.done || (thread.waits_for && thread.waits_for->generation == thread.generation)) continue;
            resume(thread);
            left -= thread.done;
            progress = 1;
        }
    }
    for (size_t i = shared; i < shared + kGuardBytes; ++i)
        if (shared_memory[i] != 0xFF) fault = "a thread wrote past the dynamic shared memory of the launch";
}

template <class... Parameters, size_t... places>
cudaError_t run_grid(void (*kernel)(Parameters...), dim3 grid, dim3 threads, void** arguments, size_t shared,
                     std::index_sequence<places...>) {
    const unsigned count = threads.x * threads.y * threads.z;
    if (!grid.x || !grid.y || !grid.z || !count || count > 1024 || grid.y > 65535 || grid.z > 65535 ||
        shared > kSharedBytes)
        return last_error = cudaErrorInvalidValue;
    const std::function<void()> call = [&] { kernel(*static_cast<Parameters*>(arguments[places])...); };
    if (current_device() != 0) return last_error = cudaErrorInvalidResourceHandle;
    const char* order = getenv("MEMOFAST_THREAD_ORDER");
    static std::vector<unsigned char> stacks;
    stacks.resize(std::max(stacks.size(), size_t(count) * kStackBytes));
    body = &call, fault = nullptr, grid_size = grid, block_size = threads;
    for (unsigned i = 0; i < grid.x * grid.y * grid.z && !fault; ++i) {
        block = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
        run_block(stacks, order && strcmp(order, "reverse") == 0, shared);
    }
    if (fault) fprintf(stderr, "block (%u, %u, %u): %s\n", block.x, block.y, block.z, fault);
    return fault ? last_error = cudaErrorLaunchFailure : 0;  // success forgets no error, as in CUDA
}

}  // namespace cuda_on_host

#define threadIdx (cuda_on_host::current->index)
#define blockIdx (cuda_on_host::block)
#define blockDim (cuda_on_host::block_size)
#define gridDim (cuda_on_host::grid_size)

template <class... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 threads, void** arguments, size_t shared,
                             cudaStream_t) {
    return cuda_on_host::run_grid(kernel, grid, threads, arguments, shared, std::index_sequence_for<Parameters...>());
}

inline void __syncthreads() { cuda_on_host::wait(cuda_on_host::block_barrier); }
inline void __syncwarp(unsigned = ~0u) { cuda_on_host::exchange("__syncwarp", 0); }

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
    return cuda_on_host::taken<T>(cuda_on_host::exchange("__shfl_sync", value), lane % 32);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return cuda_on_host::taken<T>(cuda_on_host::exchange("__shfl_xor_sync", value),
                                  (cuda_on_host::current->number % 32) ^ mask);
}

inline unsigned __ballot_sync(unsigned, int flag) {
    const auto* slots = cuda_on_host::exchange("__ballot_sync", flag);
    unsigned result = 0;
    for (int lane = 0; lane < 32; ++lane) result |= unsigned(cuda_on_host::taken<int>(slots, lane) != 0) << lane;
    return result;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline float rsqrtf(float value) { return 1.0f / __builtin_sqrtf(value); }
