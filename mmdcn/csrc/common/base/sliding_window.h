// Geometry of a kernel that slides over an image.
#pragma once

#include <cstdint>

#include "common/base/checks.h"

namespace mmdcn {

// Sizes in pixels.
struct SlidingWindow {
  int64_t height, width;  // of the image
  int64_t out_h, out_w;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;

  int64_t out_pixels() const { return out_h * out_w; }
};

// Raises for what does not fit.
inline void check_window(const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                         const std::vector<int64_t>& dilation) {
  check_pair(stride, "stride", 1);
  check_pair(padding, "padding", 0);
  check_pair(dilation, "dilation", 1);
}

// Output size along one axis; an empty output is an error.
inline int64_t window_out_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                               int64_t dilation) {
  const int64_t span = size + 2 * padding - (dilation * (kernel - 1) + 1);
  MMDCN_CHECK(span >= 0, "input: expected a padded size of at least the dilated kernel size ",
              dilation * (kernel - 1) + 1, ", got ", size + 2 * padding);
  return span / stride + 1;
}

// For checked arguments; raises where the image is too large or the output empty.
inline SlidingWindow sliding_window(int64_t height, int64_t width, int64_t kernel_h,
                                    int64_t kernel_w, const std::vector<int64_t>& stride,
                                    const std::vector<int64_t>& padding,
                                    const std::vector<int64_t>& dilation) {
  check_map_size(height, width);
  MMDCN_CHECK(kernel_h <= kMaxSize && kernel_w <= kMaxSize,
              "kernel: expected fewer than 2^31 rows and columns, got ", kernel_h, "x", kernel_w);
  return {height,
          width,
          window_out_size(height, kernel_h, stride[0], padding[0], dilation[0]),
          window_out_size(width, kernel_w, stride[1], padding[1], dilation[1]),
          kernel_h,
          kernel_w,
          stride[0],
          stride[1],
          padding[0],
          padding[1],
          dilation[0],
          dilation[1]};
}

}  // namespace mmdcn
