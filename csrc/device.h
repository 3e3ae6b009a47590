// What the CUDA runtime that is linked into the extension says of itself.
#pragma once

namespace memofast::cuda {

// Of a positive status: its name, as cudaErrorIllegalAddress, and what it stands for.
const char* error_name(int status);
const char* error_text(int status);

}  // namespace memofast::cuda
