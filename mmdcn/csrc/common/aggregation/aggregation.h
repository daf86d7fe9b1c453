// What dcnv3 and dcnv4 share: they sample alike and differ in how the points arrive.
#pragma once

#include <cmath>

#include "common/base/sliding_window.h"

namespace mmdcn::aggregation {

// Tap k = i kh + j has column i and row j of the kernel: width outer, height inner.
struct Shape : SlidingWindow {
  int64_t batch, channels, groups;
  double offset_scale;
  bool remove_center, softmax;  // softmax: over the weights of a group's taps

  int64_t taps() const { return kernel_h * kernel_w - (remove_center ? 1 : 0); }
  int64_t group_channels() const { return channels / groups; }
};

// The sizes that follow from input and the options; raises for those that do not fit.
inline Shape make_shape(const Tensor& input, const std::vector<int64_t>& kernel_size,
                        const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                        const std::vector<int64_t>& dilation, int64_t groups, double offset_scale,
                        bool remove_center, bool softmax) {
  check_dim(input, "input", 4);
  check_floating(input, "input");
  check_pair(kernel_size, "kernel_size", 1);
  check_window(stride, padding, dilation);
  check_positive(groups, "groups");
  MMDCN_CHECK(std::isfinite(offset_scale), "offset_scale: expected a finite number, got ",
              offset_scale);
  MMDCN_CHECK(!remove_center || (kernel_size[0] % 2 == 1 && kernel_size[1] % 2 == 1 &&
                                 kernel_size[0] * kernel_size[1] > 1),
              "remove_center: expected an odd kernel_size of more than one tap, got ",
              shape_string(kernel_size));
  const int64_t channels = input.size(3);
  MMDCN_CHECK(channels > 0 && channels % groups == 0, "groups: expected a divisor of the ",
              channels, " input channels, got ", groups);
  return {sliding_window(input.size(1), input.size(2), kernel_size[0], kernel_size[1], stride,
                         padding, dilation),
          input.size(0),
          channels,
          groups,
          offset_scale,
          remove_center,
          softmax};
}

inline std::vector<int64_t> output_size(const Shape& s) {
  return {s.batch, s.out_h, s.out_w, s.channels};
}

inline void check_grad_output(const Tensor& grad_output, const Shape& s, const Tensor& input) {
  check_shape(grad_output, "grad_output", output_size(s));
  check_like(grad_output, "grad_output", input, "input");
}

// Where the taps of a (pixel, group) stand: offsets as (dx, dy) pairs and one weight a tap.
template <typename S>
struct Points {
  S *offset, *weight;
  int64_t offset_pixel, offset_group, weight_pixel, weight_group;  // strides
};

}  // namespace mmdcn::aggregation
