// Transposes of matrices, with conversion.
#pragma once

#include <algorithm>

#include "common/base/dtypes.h"
#include "common/cpu/threads.h"

namespace mmdcn {

// to[j][i] = from[i][j] for i < m, j < n; `ld` are distances of [1][0] from [0][0], in elements.
#define MMDCN_DECLARE_TRANSPOSE(From, To)                                                   \
  void transpose_block(const From* from, int64_t ld_from, To* to, int64_t ld_to, int64_t m, \
                       int64_t n);
MMDCN_DECLARE_TRANSPOSE(double, double)
MMDCN_DECLARE_TRANSPOSE(float, float)
MMDCN_DECLARE_TRANSPOSE(float, BFloat16)
MMDCN_DECLARE_TRANSPOSE(float, Half)
MMDCN_DECLARE_TRANSPOSE(BFloat16, float)
MMDCN_DECLARE_TRANSPOSE(Half, float)
MMDCN_DECLARE_TRANSPOSE(BFloat16, BFloat16)
MMDCN_DECLARE_TRANSPOSE(Half, Half)
#undef MMDCN_DECLARE_TRANSPOSE

// Matrices [batch][m][n] -> [batch][n][m], in parallel. The steps are distances between matrices.
template <typename From, typename To>
inline void transpose_batch(const From* from, int64_t ld_from, int64_t step_from, To* to,
                            int64_t ld_to, int64_t step_to, int64_t batch, int64_t m, int64_t n) {
  constexpr int64_t kColumns = 512;
  const int64_t chunks = ceil_div(n, kColumns);
  parallel_items(batch * chunks, [&](int64_t item) {
    const int64_t b = item / chunks, first = item % chunks * kColumns;
    transpose_block(from + b * step_from + first, ld_from, to + b * step_to + first * ld_to, ld_to,
                    m, std::min(kColumns, n - first));
  });
}

}  // namespace mmdcn
