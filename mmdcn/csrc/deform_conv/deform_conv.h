// Arguments and sizes of (modulated) deformable convolution, shared by the devices.
#pragma once

#include "common/tensor.h"

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
DeformConvShape deform_conv_shape(const Tensor& input, const Tensor& offset,
                                  const std::optional<Tensor>& mask, const Tensor& weight,
                                  const std::optional<Tensor>& bias,
                                  const std::vector<int64_t>& stride,
                                  const std::vector<int64_t>& padding,
                                  const std::vector<int64_t>& dilation, int64_t groups,
                                  int64_t deform_groups);

}  // namespace mmdcn
