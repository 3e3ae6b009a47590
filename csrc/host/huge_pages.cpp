#include "host/huge_pages.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace memofast {

void advise_huge_pages(void* data, size_t size) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t kPage = 2 << 20;
    const uintptr_t low = (uintptr_t(data) + kPage - 1) / kPage * kPage;
    const uintptr_t high = (uintptr_t(data) + size) / kPage * kPage;
    if (low < high) madvise(reinterpret_cast<void*>(low), high - low, MADV_HUGEPAGE);
#endif
}

}  // namespace memofast
