// What every kernel is written with: teams of threads, memory accesses, atomics. No torch library
// is seen here, only its header of the 16-bit types, so that the kernels also compile for a host.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "common/base/dtypes.h"

namespace mmdcn {

constexpr int kBlockThreads = 256;
constexpr int kWarpThreads = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

// Blocks that shall fit on a multiprocessor, which limits a kernel's registers: to 64 in forward
// kernels, 128 in backward kernels, and twice that when computing in float64.
template <typename T>
constexpr int kForwardBlocks = sizeof(T) == 8 ? 2 : 4;
template <typename T>
constexpr int kBackwardBlocks = kForwardBlocks<T> / 2;

// Consecutive threads of one warp that share an item of work, one to 32 of them, a power of two.
// Whole warps take part in the shuffles: threads without work must not leave a loop early.
struct Team {
  int size, lane;

  explicit __device__ Team(int log_size) : size(1 << log_size), lane(threadIdx.x & (size - 1)) {}

  template <typename T>
  __device__ T from(T value, int source) const {
    return __shfl_sync(kWholeWarp, value, source, size);
  }

  template <typename T>
  __device__ T sum(T value) const {
    for (int step = size / 2; step > 0; step /= 2)
      value += __shfl_xor_sync(kWholeWarp, value, step);
    return value;
  }
};

// The items of a grid of teams: every team of a block goes round the loop equally often, the last
// time perhaps with an item that does not exist.
class Items {
 public:
  __device__ Items(const int64_t& count, int log_team_size)
      : count_(count), log_team_size_(log_team_size), next_(int64_t{blockIdx.x} * teams()) {}

  __device__ bool more() const { return next_ < count_; }
  __device__ void advance() { next_ += int64_t{gridDim.x} * teams(); }
  __device__ bool exists() const { return next_ + team() < count_; }
  // An existing item in any case.
  __device__ int64_t item() const { return exists() ? next_ + team() : next_; }

 private:
  __device__ int teams() const { return blockDim.x >> log_team_size_; }
  __device__ int team() const { return threadIdx.x >> log_team_size_; }

  const int64_t& count_;  // a parameter of the kernel, which needs no register
  const int log_team_size_;
  int64_t next_;
};

// a / b, and a % b in *remainder, for a >= 0 and b > 0. The 64-bit division is several times slower
// than the other.
__device__ inline int64_t divide(int64_t a, int32_t b, int32_t* remainder) {
  const uint32_t divisor = static_cast<uint32_t>(b);
  if (a >> 32 == 0) {
    const uint32_t dividend = static_cast<uint32_t>(a);
    const uint32_t quotient = dividend / divisor;
    *remainder = static_cast<int32_t>(dividend - quotient * divisor);
    return quotient;
  }
  const uint64_t quotient = static_cast<uint64_t>(a) / divisor;
  *remainder = static_cast<int32_t>(static_cast<uint64_t>(a) - quotient * divisor);
  return static_cast<int64_t>(quotient);
}

// N elements that are read or written by one instruction.
template <typename S, int N>
struct Pack {
  S at[N];
};

template <int kBytes>
struct Word;
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

// The address is a multiple of the size of the pack, and the memory is constant while the kernel
// runs.
template <int N, typename S>
__device__ __forceinline__ Pack<S, N> load(const S* address) {
  using W = typename Word<N * sizeof(S)>::type;
  const W word = __ldg(reinterpret_cast<const W*>(address));
  Pack<S, N> pack;
  memcpy(&pack, &word, sizeof(pack));
  return pack;
}

// Zeros, and no access, unless `condition`.
template <int N, typename S>
__device__ __forceinline__ Pack<S, N> load_if(bool condition, const S* address) {
  using W = typename Word<N * sizeof(S)>::type;
  W word{};
  if (condition) word = __ldg(reinterpret_cast<const W*>(address));
  Pack<S, N> pack;
  memcpy(&pack, &word, sizeof(pack));
  return pack;
}

template <typename S>
__device__ __forceinline__ Compute<S> load_value(const S* address) {
  return to_compute(load<1>(address).at[0]);
}

template <int N, typename S>
__device__ __forceinline__ void store(S* address, const Compute<S>* values) {
  Pack<S, N> pack;
  for (int i = 0; i < N; ++i) pack.at[i] = from_compute<S>(values[i]);
  using W = typename Word<N * sizeof(S)>::type;
  W word;
  memcpy(&word, &pack, sizeof(word));
  __stwb(reinterpret_cast<W*>(address), word);
}

template <typename S>
__device__ __forceinline__ void store_value(S* address, Compute<S> value) {
  store<1>(address, &value);
}

// Four floats at once where the hardware has it.
#if !defined(MMDCN_VECTOR_ATOMICS)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define MMDCN_VECTOR_ATOMICS true
#else
#define MMDCN_VECTOR_ATOMICS false
#endif
#endif

template <int N>
__device__ __forceinline__ void atomic_add(double* address, const double* values) {
  for (int i = 0; i < N; ++i) atomicAdd(address + i, values[i]);
}

template <int N>
__device__ __forceinline__ void atomic_add(float* address, const float* values) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  if constexpr (N == 4) {
    atomicAdd(reinterpret_cast<float4*>(address),
              make_float4(values[0], values[1], values[2], values[3]));
  } else
#endif
  {
    for (int i = 0; i < N; ++i) atomicAdd(address + i, values[i]);
  }
}

// Where gradients from any thread are added up: in T, in an order that differs from run to run,
// or, if `fixed` is set, as integers in units of 1 / scale, whose sum is always the same.
template <typename T>
struct GradientSum {
  T* sum;
  unsigned long long* fixed;
  const double* scale;
};

template <int N, typename T>
__device__ __forceinline__ void add_fixed(unsigned long long* address, const T* values,
                                          double scale) {
  for (int i = 0; i < N; ++i) {
    const long long units = llrint(static_cast<double>(values[i]) * scale);
    atomicAdd(address + i, static_cast<unsigned long long>(units));
  }
}

}  // namespace mmdcn
