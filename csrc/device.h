// What the CUDA runtime that is linked into the extension says of itself, and the device that it launches on.
#pragma once

namespace memofast::cuda {

// Of a positive status: its name, as cudaErrorIllegalAddress, and what it stands for.
const char* error_name(int status);
const char* error_text(int status);

// Makes a device the calling thread's current one, and leaves the one before when it goes.
class CurrentDevice {
public:
    explicit CurrentDevice(int device);
    CurrentDevice(const CurrentDevice&) = delete;
    ~CurrentDevice();
    int status() const { return status_; }

private:
    int before_ = -1;  // -1: nothing to go back to
    int status_;
};

}  // namespace memofast::cuda
