// Memory of batches: aligned, recycled when the last tensor on it is gone, so that packing pays page faults only once.
#pragma once

#include <cstddef>

namespace memofast {

struct BatchMemory {
    void* data = nullptr;
    size_t size = 0;  // bytes usable
};

// At least `size` bytes, aligned to 2 MiB and asked to be huge pages; contents are arbitrary.
// data is null where there is no memory.
BatchMemory take_batch_memory(size_t size);

// Keeps the memory for a later batch, or frees it where enough is kept.
void give_batch_memory_back(BatchMemory memory);

// Bytes kept for later batches.
size_t idle_batch_memory();

}  // namespace memofast
