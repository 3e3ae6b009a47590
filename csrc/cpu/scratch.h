// Memory of one thread, of which parts are whole vectors.
#pragma once

#include <stdlib.h>

#include "cpu/matmul.h"

namespace memofast::MEMOFAST_VARIANT {

struct Scratch {
    float* data;  // null: there was none
    int64_t used = 0;
    explicit Scratch(int64_t floats)
        : data(static_cast<float*>(aligned_alloc(64, size_t(round_up(4 * floats, 4096))))) {}
    Scratch(const Scratch&) = delete;
    ~Scratch() { free(data); }
    float* take(int64_t floats) {
        float* part = data + used;
        used += round_up(floats, 16);
        return part;
    }
};

}  // namespace memofast::MEMOFAST_VARIANT
