#pragma once

#include <cstddef>

namespace memofast {

// Asks for the whole 2 MiB pages within [data, data + size) to be huge ones: fresh memory costs mostly page faults.
void advise_huge_pages(void* data, size_t size);

}  // namespace memofast
