// Small kernels for the tests of the emulator itself, some of them wrong on purpose.
#include <cuda_runtime.h>

constexpr int kThreads = 64;

extern __shared__ float dynamic_tile[];

struct Arrays {
  const float* in;
  float* out;
  int size;
};

template <typename P>
int launch(void (*kernel)(P), P params, int blocks) {
  void* arguments[] = {&params};
  try {
    return cudaLaunchKernel(kernel, dim3(blocks), dim3(kThreads), arguments, 0, nullptr);
  } catch (const std::runtime_error&) {
    return 1;
  }
}

// Reverses each run of kThreads numbers.
template <bool kBarrier>
__global__ void reverse_kernel(Arrays p) {
  __shared__ float tile[kThreads];
  const int first = blockIdx.x * blockDim.x;
  tile[threadIdx.x] = __ldg(p.in + first + threadIdx.x);
  if (kBarrier) __syncthreads();
  __stwb(p.out + first + threadIdx.x, tile[blockDim.x - 1 - threadIdx.x]);
}

// The sum of each run.
__global__ void sum_kernel(Arrays p) {
  dynamic_tile[threadIdx.x] = __ldg(p.in + blockIdx.x * blockDim.x + threadIdx.x);
  for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) dynamic_tile[threadIdx.x] += dynamic_tile[threadIdx.x + step];
  }
  if (threadIdx.x == 0) __stwb(p.out + blockIdx.x, dynamic_tile[0]);
}

// Reads p.size numbers, although p.in may have fewer.
__global__ void copy_kernel(Arrays p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.size) __stwb(p.out + i, __ldg(p.in + i));
}

__global__ void vector_kernel(Arrays p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  __stwb(reinterpret_cast<float4*>(p.out) + i, __ldg(reinterpret_cast<const float4*>(p.in) + i));
}

// Half of a warp waits for the other half, which has left.
__global__ void deadlock_kernel(Arrays p) {
  if (threadIdx.x % 32 < 16) p.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

// out[i] += votes and shuffles that only a warp with the right lanes gets right.
__global__ void warp_kernel(Arrays p) {
  const unsigned lane = threadIdx.x % 32;
  float value = __ldg(p.in + threadIdx.x);
  value += __shfl_sync(0xffffffffu, value, 1, 4);          // of the second of four lanes
  value += __shfl_xor_sync(0xffffffffu, value, 16);        // of the lane opposite
  value += __ballot_sync(0xffffffffu, lane % 2) & 0xffff;  // 0xaaaa
  value += __any_sync(0xffffffffu, lane == 7) + 2 * __all_sync(0xffffffffu, lane == 7);
  atomicAdd(p.out + threadIdx.x % 2, value);
}

extern "C" {

#define EXPORT __attribute__((visibility("default")))

EXPORT int test_reverse(const float* in, float* out, int blocks, int barrier) {
  return launch(barrier ? reverse_kernel<true> : reverse_kernel<false>, Arrays{in, out, 0}, blocks);
}
EXPORT int test_sum(const float* in, float* out, int blocks) {
  return launch(sum_kernel, Arrays{in, out, 0}, blocks);
}
EXPORT int test_copy(const float* in, float* out, int size) {
  return launch(copy_kernel, Arrays{in, out, size}, (size + kThreads - 1) / kThreads);
}
EXPORT int test_vector(const float* in, float* out, int blocks) {
  return launch(vector_kernel, Arrays{in, out, 0}, blocks);
}
EXPORT int test_deadlock(float* out) { return launch(deadlock_kernel, Arrays{out, out, 0}, 1); }
EXPORT int test_warp(const float* in, float* out) {
  return launch(warp_kernel, Arrays{in, out, 0}, 1);
}
}

// Storage of the dynamic array, as the emulator wants it.
thread_local float dynamic_tile[kThreads];
