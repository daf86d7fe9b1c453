// Attributes of functions for host and device.
#pragma once

#if defined(__CUDACC__)
#define MMDCN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MMDCN_HOST_DEVICE inline __attribute__((always_inline))
#endif
