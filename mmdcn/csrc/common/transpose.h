// Fast transposes between float32 and the storage types of up to 32 bits: overloads of
// transpose_block, dst[c][r] = src[r][c] for a rows x cols block, ld are row lengths in elements.
#pragma once

#include "common/cpu.h"

namespace mmdcn {

#define MMDCN_DECLARE_TRANSPOSE(From, To)                                                      \
  void transpose_block(const From* src, int64_t ld_src, To* dst, int64_t ld_dst, int64_t rows, \
                       int64_t cols);
MMDCN_DECLARE_TRANSPOSE(float, float)
MMDCN_DECLARE_TRANSPOSE(float, BFloat16)
MMDCN_DECLARE_TRANSPOSE(float, Half)
MMDCN_DECLARE_TRANSPOSE(BFloat16, float)
MMDCN_DECLARE_TRANSPOSE(Half, float)
#undef MMDCN_DECLARE_TRANSPOSE

}  // namespace mmdcn
