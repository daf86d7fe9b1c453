// Arguments and sizes of dcnv3 and dcnv4, which sample alike and differ in how the points arrive.
#pragma once

#include <cmath>

#include "common/base/tensor.h"

namespace mmdcn {

// Tap k = i kh + j has column i and row j of the kernel: width outer, height inner.
struct DCNv3Shape {
  int64_t batch, height, width, channels;
  int64_t out_h, out_w;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups;
  double offset_scale;
  bool remove_center;

  int64_t taps() const { return kernel_h * kernel_w - (remove_center ? 1 : 0); }
  int64_t group_channels() const { return channels / groups; }
  int64_t out_pixels() const { return out_h * out_w; }
};

// The sizes that follow from input and the options; raises for those that do not fit.
inline DCNv3Shape dcnv3_shape(const Tensor& input, const std::vector<int64_t>& kernel_size,
                              const std::vector<int64_t>& stride,
                              const std::vector<int64_t>& padding,
                              const std::vector<int64_t>& dilation, int64_t groups,
                              double offset_scale, bool remove_center) {
  check_dim(input, "input", 4);
  check_floating(input, "input");
  check_pair(kernel_size, "kernel_size", 1);
  check_pair(stride, "stride", 1);
  check_pair(padding, "padding", 0);
  check_pair(dilation, "dilation", 1);
  check_positive(groups, "groups");
  STD_TORCH_CHECK(std::isfinite(offset_scale), "offset_scale: expected a finite number, got ",
                  offset_scale);
  STD_TORCH_CHECK(!remove_center || (kernel_size[0] % 2 == 1 && kernel_size[1] % 2 == 1 &&
                                     kernel_size[0] * kernel_size[1] > 1),
                  "remove_center: expected an odd kernel_size of more than one tap, got ",
                  shape_string(kernel_size));
  DCNv3Shape s{};
  s.batch = input.size(0);
  s.height = input.size(1);
  s.width = input.size(2);
  s.channels = input.size(3);
  s.kernel_h = kernel_size[0], s.kernel_w = kernel_size[1];
  s.stride_h = stride[0], s.stride_w = stride[1];
  s.pad_h = padding[0], s.pad_w = padding[1];
  s.dilation_h = dilation[0], s.dilation_w = dilation[1];
  s.groups = groups;
  s.offset_scale = offset_scale;
  s.remove_center = remove_center;
  STD_TORCH_CHECK(s.channels > 0 && s.channels % groups == 0, "groups: expected a divisor of the ",
                  s.channels, " input channels, got ", groups);
  check_map_size(s.height, s.width);
  s.out_h = conv_out_size(s.height, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h);
  s.out_w = conv_out_size(s.width, s.kernel_w, s.stride_w, s.pad_w, s.dilation_w);
  return s;
}

// The same for all arguments of dcnv3.
inline DCNv3Shape dcnv3_shape(const Tensor& input, const Tensor& offset, const Tensor& mask,
                              const std::vector<int64_t>& kernel_size,
                              const std::vector<int64_t>& stride,
                              const std::vector<int64_t>& padding,
                              const std::vector<int64_t>& dilation, int64_t groups,
                              double offset_scale, bool remove_center) {
  const DCNv3Shape s = dcnv3_shape(input, kernel_size, stride, padding, dilation, groups,
                                   offset_scale, remove_center);
  check_like(offset, "offset", input, "input");
  check_like(mask, "mask", input, "input");
  const int64_t points = groups * s.taps();
  check_shape(offset, "offset", {s.batch, s.out_h, s.out_w, 2 * points});
  check_shape(mask, "mask", {s.batch, s.out_h, s.out_w, points});
  return s;
}

// Where the taps of a (pixel, group) stand: offsets as (dx, dy) pairs and one weight a tap.
template <typename S>
struct DCNv3Points {
  S *offset, *weight;
  int64_t offset_pixel, offset_group, weight_pixel, weight_group;  // strides
};

// The points of dcnv3.
template <typename S>
DCNv3Points<S> dcnv3_points(const DCNv3Shape& s, S* offset, S* mask) {
  return {offset, mask, 2 * s.groups * s.taps(), 2 * s.taps(), s.groups * s.taps(), s.taps()};
}

template <typename S>
void dcnv3_forward_cpu(const DCNv3Shape& s, const S* input, const DCNv3Points<const S>& points,
                       bool softmax, S* output);

// grad_points has the layout of points. grad_input is null when it is not needed.
template <typename S>
void dcnv3_backward_cpu(const DCNv3Shape& s, const S* grad_output, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, S* grad_input,
                        const DCNv3Points<S>& grad_points);

}  // namespace mmdcn
