// Arguments and sizes of (modulated) deformable convolution, shared by the devices.
#pragma once

#include "common/base/tensor.h"

namespace mmdcn {

// offset holds, for deform group d and tap k, dy at channel 2 (d K + k) and dx right after it;
// mask holds one channel per (d, k).
struct DeformConvShape {
  int64_t batch, channels, height, width;
  int64_t out_channels, kernel_h, kernel_w, out_h, out_w;
  int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups, deform_groups;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t out_pixels() const { return out_h * out_w; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_out_channels() const { return out_channels / groups; }
};

// Raises for every argument that does not fit; the message names it, what was expected and got.
inline DeformConvShape deform_conv_shape(const Tensor& input, const Tensor& offset,
                                         const std::optional<Tensor>& mask, const Tensor& weight,
                                         const std::optional<Tensor>& bias,
                                         const std::vector<int64_t>& stride,
                                         const std::vector<int64_t>& padding,
                                         const std::vector<int64_t>& dilation, int64_t groups,
                                         int64_t deform_groups) {
  check_dim(input, "input", 4);
  check_dim(weight, "weight", 4);
  check_floating(input, "input");
  check_like(offset, "offset", input, "input");
  if (mask) check_like(*mask, "mask", input, "input");
  check_like(weight, "weight", input, "input");
  if (bias) check_like(*bias, "bias", input, "input");
  check_pair(stride, "stride", 1);
  check_pair(padding, "padding", 0);
  check_pair(dilation, "dilation", 1);
  check_positive(groups, "groups");
  check_positive(deform_groups, "deform_groups");

  DeformConvShape s{};
  s.batch = input.size(0);
  s.channels = input.size(1);
  s.height = input.size(2);
  s.width = input.size(3);
  s.out_channels = weight.size(0);
  s.kernel_h = weight.size(2);
  s.kernel_w = weight.size(3);
  s.stride_h = stride[0], s.stride_w = stride[1];
  s.pad_h = padding[0], s.pad_w = padding[1];
  s.dilation_h = dilation[0], s.dilation_w = dilation[1];
  s.groups = groups;
  s.deform_groups = deform_groups;

  STD_TORCH_CHECK(s.channels > 0 && s.channels % groups == 0, "groups: expected a divisor of the ",
                  s.channels, " input channels, got ", groups);
  STD_TORCH_CHECK(s.channels % deform_groups == 0, "deform_groups: expected a divisor of the ",
                  s.channels, " input channels, got ", deform_groups);
  STD_TORCH_CHECK(s.out_channels > 0 && s.out_channels % groups == 0,
                  "weight: expected a positive number of output channels that groups (", groups,
                  ") divides, got ", s.out_channels);
  STD_TORCH_CHECK(s.kernel_h > 0 && s.kernel_w > 0, "weight: expected a non-empty kernel, got ",
                  s.kernel_h, "x", s.kernel_w);
  check_shape(weight, "weight", {s.out_channels, s.channels / groups, s.kernel_h, s.kernel_w});
  check_map_size(s.height, s.width);
  s.out_h = conv_out_size(s.height, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h);
  s.out_w = conv_out_size(s.width, s.kernel_w, s.stride_w, s.pad_w, s.dilation_w);
  const int64_t points = deform_groups * s.taps();
  check_shape(offset, "offset", {s.batch, 2 * points, s.out_h, s.out_w});
  if (mask) check_shape(*mask, "mask", {s.batch, points, s.out_h, s.out_w});
  if (bias) check_shape(*bias, "bias", {s.out_channels});
  return s;
}

}  // namespace mmdcn
