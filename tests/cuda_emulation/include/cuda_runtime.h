// A CUDA device in plain C++, for tests: it stands in for the toolkit's header of the same name, so
// that a host compiler takes the kernels' own sources, sanitizers included.
//
// The threads of a block are fibers of one host thread. A fiber runs until it has to wait for
// others, at __syncthreads or in a warp-wide operation; the next one to run is chosen in an order
// that tests can change, so that code which lacks a barrier gives different results.
//
// Not covered: partial masks of warps, several streams, memory ordering, __shared__ arrays that
// are cleared between blocks. Kernels have one parameter.
#pragma once

// First, since it is replaced below.
#include <torch/csrc/stable/library.h>

#include <math.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time. For a dynamic array (extern __shared__), the test defines the storage.
#define __shared__ thread_local

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

enum Access : uint32_t { kLoad, kStore, kAtomic };

struct Thread {
  dim3 index{0, 0, 0};
  unsigned linear;
};

// What the running fiber sees.
extern Thread* thread;
extern dim3 block_index, block_size, grid_size;
extern bool recording, vector_atomics;

void wait_for_block();
// Gives `value` to the warp and returns the values of all of its 32 threads. `operation` must be
// the same in all of them.
const uint64_t* exchange(const char* operation, unsigned mask, uint64_t value);
void record(Access access, const void* address, unsigned bytes);
void run_grid(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
              void (*call)(const void* kernel, void* parameter), void* parameter);

template <typename T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(value));
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

template <typename T, typename V>
T atomic(T* address, const V& update) {
  if (recording) record(kAtomic, address, sizeof(T));
  const T old = *address;
  *address = update(old);
  return old;
}

}  // namespace emulation

#define threadIdx (::emulation::thread->index)
#define blockIdx (::emulation::block_index)
#define blockDim (::emulation::block_size)
#define gridDim (::emulation::grid_size)

inline void __syncthreads() { emulation::wait_for_block(); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const uint64_t* all = emulation::exchange("__shfl_sync", mask, emulation::to_bits(value));
  const int lane = emulation::thread->linear % 32;
  return emulation::from_bits<T>(all[(lane & ~(width - 1)) | (source & (width - 1))]);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  const uint64_t* all = emulation::exchange("__shfl_xor_sync", mask, emulation::to_bits(value));
  return emulation::from_bits<T>(all[(emulation::thread->linear % 32) ^ lanes]);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* all = emulation::exchange("__ballot_sync", mask, predicate != 0);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(all[lane]) << lane;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == 0xffffffffu;
}

template <typename T>
T __ldg(const T* address) {
  if (emulation::recording) emulation::record(emulation::kLoad, address, sizeof(T));
  return *address;
}

template <typename T>
void __stwb(T* address, T value) {
  if (emulation::recording) emulation::record(emulation::kStore, address, sizeof(T));
  *address = value;
}

template <typename T>
T atomicAdd(T* address, T value) {
  return emulation::atomic(address, [value](T old) { return old + value; });
}
inline float4 atomicAdd(float4* address, float4 v) {
  return emulation::atomic(address, [v](float4 old) {
    return float4{old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w};
  });
}
template <typename T>
T atomicMax(T* address, T value) {
  return emulation::atomic(address, [value](T old) { return old > value ? old : value; });
}

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}
inline long long __double_as_longlong(double value) {
  return emulation::from_bits<long long>(emulation::to_bits(value));
}
inline double __longlong_as_double(long long value) {
  return emulation::from_bits<double>(emulation::to_bits(value));
}

// Both ways of adding to an address have tests, whatever the hardware.
#define MMDCN_VECTOR_ATOMICS (::emulation::vector_atomics)

// The host's side.

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
using cudaStream_t = void*;

namespace emulation {
template <typename P>
void launch(void (*kernel)(P), dim3 grid, dim3 block, void** arguments, size_t shared_bytes) {
  run_grid(
      reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
      [](const void* function, void* parameter) {
        reinterpret_cast<void (*)(P)>(const_cast<void*>(function))(*static_cast<P*>(parameter));
      },
      arguments[0]);
}
}  // namespace emulation

template <typename T>
cudaError_t cudaLaunchKernel(T* kernel, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t) {
  emulation::launch(kernel, grid, block, arguments, shared_bytes);
  return cudaSuccess;
}

// The operators run on CPU tensors.
#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(ns, key, m) _STABLE_TORCH_LIBRARY_IMPL(ns, CPU, m, C10_UID)
