// CUDA's half precision as the host's.
#pragma once

using __half = _Float16;

inline float __half2float(__half value) { return float(value); }
inline __half __float2half_rn(float value) { return __half(value); }
