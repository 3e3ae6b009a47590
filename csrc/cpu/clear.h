// Memory that no sequence, row or sample fills.
#pragma once

#include <stdint.h>
#include <string.h>

namespace memofast::MEMOFAST_VARIANT {

// Of a tensor without elements `at` is null, which memset must not be given.
inline void clear(void* at, int64_t bytes) {
    if (bytes) memset(at, 0, size_t(bytes));
}

}  // namespace memofast::MEMOFAST_VARIANT
