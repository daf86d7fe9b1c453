// Arguments and sizes of dcnv3 and dcnv4, which sample alike and differ in how the points arrive.
#pragma once

#include "common/tensor.h"

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
DCNv3Shape dcnv3_shape(const Tensor& input, const std::vector<int64_t>& kernel_size,
                       const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                       const std::vector<int64_t>& dilation, int64_t groups, double offset_scale,
                       bool remove_center);

// The same for all arguments of dcnv3.
DCNv3Shape dcnv3_shape(const Tensor& input, const Tensor& offset, const Tensor& mask,
                       const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                       const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                       int64_t groups, double offset_scale, bool remove_center);

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

// grad_points has the layout of points. grad_input is null when it is not needed, else zero.
template <typename S>
void dcnv3_backward_cpu(const DCNv3Shape& s, const S* grad_output, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, Tensor* grad_input,
                        const DCNv3Points<S>& grad_points);

}  // namespace mmdcn
