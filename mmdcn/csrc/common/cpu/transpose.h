// Fast transposes from or to float32, and of the storage types of up to 32 bits: overloads of
// transpose_block, dst[c][r] = src[r][c] for a rows x cols block, ld are row lengths in elements.
#pragma once

#include "common/cpu/threads.h"

namespace mmdcn {

#define MMDCN_DECLARE_TRANSPOSE(From, To)                                                      \
  void transpose_block(const From* src, int64_t ld_src, To* dst, int64_t ld_dst, int64_t rows, \
                       int64_t cols);
MMDCN_DECLARE_TRANSPOSE(float, float)
MMDCN_DECLARE_TRANSPOSE(float, BFloat16)
MMDCN_DECLARE_TRANSPOSE(float, Half)
MMDCN_DECLARE_TRANSPOSE(BFloat16, float)
MMDCN_DECLARE_TRANSPOSE(Half, float)
MMDCN_DECLARE_TRANSPOSE(BFloat16, BFloat16)
MMDCN_DECLARE_TRANSPOSE(Half, Half)
#undef MMDCN_DECLARE_TRANSPOSE

// Matrices [batch][rows][cols] -> [batch][cols][rows], in parallel. The ld are row lengths, the
// steps distances between matrices.
template <typename From, typename To>
inline void transpose_batch(const From* src, int64_t ld_src, int64_t step_src, To* dst,
                            int64_t ld_dst, int64_t step_dst, int64_t batch, int64_t rows,
                            int64_t cols) {
  constexpr int64_t kCols = 512;
  const int64_t chunks = ceil_div(cols, kCols);
  parallel_items(batch * chunks, [&](int64_t item) {
    const int64_t n = item / chunks, c0 = item % chunks * kCols;
    transpose_block(src + n * step_src + c0, ld_src, dst + n * step_dst + c0 * ld_dst, ld_dst, rows,
                    std::min(kCols, cols - c0));
  });
}

}  // namespace mmdcn
