// Helpers of the CPU kernels: run-time choice of the instruction set, threads, layout changes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

// MMDCN_CLONES compiles a function once per x86-64 level and picks one when the library loads;
// elsewhere the compiler's default target is used. Templates cannot be cloned: clone a plain
// function that calls an always-inline template.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 11 && !defined(__SANITIZE_ADDRESS__)
#define MMDCN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MMDCN_CLONES
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

// dst[c][r] = src[r][c] for a rows x cols block; ld are row lengths in elements.
template <typename T>
inline void transpose_block(const T* __restrict src, int64_t ld_src, T* __restrict dst,
                            int64_t ld_dst, int64_t rows, int64_t cols) {
  constexpr int64_t kBlock = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kBlock) {
    const int64_t r1 = std::min(r0 + kBlock, rows);
    for (int64_t c0 = 0; c0 < cols; c0 += kBlock) {
      const int64_t c1 = std::min(c0 + kBlock, cols);
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t r = r0; r < r1; ++r) dst[c * ld_dst + r] = src[r * ld_src + c];
      }
    }
  }
}

// [batch][rows][cols] -> [batch][cols][rows], in parallel.
template <typename T>
inline void transpose_batch(const T* src, T* dst, int64_t batch, int64_t rows, int64_t cols) {
  constexpr int64_t kCols = 512;
  const int64_t chunks = ceil_div(cols, kCols);
  parallel_items(batch * chunks, [&](int64_t item) {
    const int64_t n = item / chunks, c0 = item % chunks * kCols;
    transpose_block(src + n * rows * cols + c0, cols, dst + (n * cols + c0) * rows, rows, rows,
                    std::min(kCols, cols - c0));
  });
}

}  // namespace mmdcn
