// Helpers of the CPU kernels: run-time choice of the instruction set, threads, layout changes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "common/base/dtypes.h"

// MMDCN_CLONES compiles a function once per x86-64 level and picks one when the library loads;
// elsewhere the compiler's default target is used. Templates cannot be cloned: clone a plain
// function that calls an always-inline template.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 11 && !defined(__SANITIZE_ADDRESS__)
#define MMDCN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MMDCN_CLONES
#endif

// Before a loop whose iterations are independent, which the compiler cannot know.
#if defined(__clang__)
#define MMDCN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define MMDCN_INDEPENDENT _Pragma("GCC ivdep")
#endif

#define MMDCN_INLINE inline __attribute__((always_inline))

namespace mmdcn {

// Calls f(i) for i in [0, count) from several threads. Work is cut into items by the caller,
// independently of the number of threads, so that results are too.
template <typename F>
inline void parallel_items(int64_t count, const F& f) {
  if (count == 1) return f(int64_t{0});
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <typename To, typename From>
MMDCN_INLINE To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return from_compute<To>(static_cast<Compute<To>>(to_compute(value)));
  }
}

template <typename From, typename To>
inline void convert_copy(const From* __restrict src, int64_t count, To* __restrict dst) {
  for (int64_t i = 0; i < count; ++i) dst[i] = convert<To>(src[i]);
}

// dst[c][r] = src[r][c] for a rows x cols block; ld are row lengths in elements.
template <typename From, typename To>
inline void transpose_block(const From* __restrict src, int64_t ld_src, To* __restrict dst,
                            int64_t ld_dst, int64_t rows, int64_t cols) {
  constexpr int64_t kBlock = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kBlock) {
    const int64_t r1 = std::min(r0 + kBlock, rows);
    for (int64_t c0 = 0; c0 < cols; c0 += kBlock) {
      const int64_t c1 = std::min(c0 + kBlock, cols);
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t r = r0; r < r1; ++r) {
          dst[c * ld_dst + r] = convert<To>(src[r * ld_src + c]);
        }
      }
    }
  }
}

// Memory that is not initialised, unlike std::vector's.
template <typename T>
using Buffer = std::unique_ptr<T[]>;

template <typename T>
inline Buffer<T> make_buffer(int64_t size) {
  return std::make_unique_for_overwrite<T[]>(size);
}

template <typename T>
inline Buffer<T> make_zeros(int64_t size) {
  Buffer<T> buffer = make_buffer<T>(size);
  std::fill_n(buffer.get(), size, static_cast<T>(0));
  return buffer;
}

}  // namespace mmdcn
