#include "batch_memory.h"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "host/huge_pages.h"

namespace memofast {
namespace {

constexpr size_t kAlignment = size_t{2} << 20;
constexpr size_t kMaxIdle = 16;

std::mutex mutex;

// Never destroyed: tensors may outlive static destruction.
std::vector<BatchMemory>& idle() {
    static auto* blocks = new std::vector<BatchMemory>;
    return *blocks;
}

// The smallest idle block that fits without wasting more than half of it.
BatchMemory take_idle(size_t size) {
    const std::lock_guard lock(mutex);
    auto& blocks = idle();
    size_t best = blocks.size();
    for (size_t i = 0; i < blocks.size(); ++i)
        if (blocks[i].size >= size && blocks[i].size / 2 <= size &&
            (best == blocks.size() || blocks[i].size < blocks[best].size))
            best = i;
    if (best == blocks.size()) return {};
    const BatchMemory found = blocks[best];
    blocks.erase(blocks.begin() + long(best));
    return found;
}

}  // namespace

BatchMemory take_batch_memory(size_t size) {
    if (size > PTRDIFF_MAX / 2) return {};
    size = (size + kAlignment - 1) / kAlignment * kAlignment;
    if (BatchMemory found = take_idle(size); found.data) return found;
    size += (size / 8) / kAlignment * kAlignment;  // room for the somewhat larger batch that will come
    void* data = std::aligned_alloc(kAlignment, size);
    if (data) advise_huge_pages(data, size);
    return {data, data ? size : 0};
}

void give_batch_memory_back(BatchMemory memory) {
    void* surplus = nullptr;
    {
        const std::lock_guard lock(mutex);
        auto& blocks = idle();
        blocks.push_back(memory);
        if (blocks.size() > kMaxIdle) {
            surplus = blocks.front().data;
            blocks.erase(blocks.begin());
        }
    }
    std::free(surplus);
}

size_t idle_batch_memory() {
    const std::lock_guard lock(mutex);
    size_t bytes = 0;
    for (const BatchMemory& block : idle()) bytes += block.size;
    return bytes;
}

}  // namespace memofast
