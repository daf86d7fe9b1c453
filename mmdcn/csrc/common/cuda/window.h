// The host's side of the kernels that slide over an image.
#pragma once

#include "common/base/sliding_window.h"
#include "common/cuda/host.h"
#include "common/cuda/sampling.cuh"

namespace mmdcn {

inline WindowGrid window_grid(const SlidingWindow& s) {
  // The kernels count taps, and place them, in 32 bits.
  to_int32(s.kernel_h * s.kernel_w);
  to_int32(s.dilation_h * (s.kernel_h - 1)), to_int32(s.dilation_w * (s.kernel_w - 1));
  return {to_int32(s.height),   to_int32(s.width),      to_int32(s.out_h),
          to_int32(s.out_w),    to_int32(s.kernel_h),   to_int32(s.kernel_w),
          to_int32(s.stride_h), to_int32(s.stride_w),   to_int32(s.pad_h),
          to_int32(s.pad_w),    to_int32(s.dilation_h), to_int32(s.dilation_w)};
}

}  // namespace mmdcn
