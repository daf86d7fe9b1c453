#include "dcnv3/dcnv3.h"

#include <cmath>

namespace mmdcn {

DCNv3Shape dcnv3_shape(const Tensor& input, const std::vector<int64_t>& kernel_size,
                       const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                       const std::vector<int64_t>& dilation, int64_t groups, double offset_scale,
                       bool remove_center) {
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

DCNv3Shape dcnv3_shape(const Tensor& input, const Tensor& offset, const Tensor& mask,
                       const std::vector<int64_t>& kernel_size, const std::vector<int64_t>& stride,
                       const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                       int64_t groups, double offset_scale, bool remove_center) {
  const DCNv3Shape s = dcnv3_shape(input, kernel_size, stride, padding, dilation, groups,
                                   offset_scale, remove_center);
  check_like(offset, "offset", input, "input");
  check_like(mask, "mask", input, "input");
  const int64_t points = groups * s.taps();
  check_shape(offset, "offset", {s.batch, s.out_h, s.out_w, 2 * points});
  check_shape(mask, "mask", {s.batch, s.out_h, s.out_w, points});
  return s;
}

}  // namespace mmdcn

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def(
      "dcnv3(Tensor input, Tensor offset, Tensor mask, int[] kernel_size, int[] stride, "
      "int[] padding, int[] dilation, int groups, float offset_scale, bool remove_center, "
      "bool mask_softmax) -> Tensor");
  // An input gradient that is not needed comes back as an empty tensor. deterministic: gradients
  // must be the same bits in every run (on the CPU they always are).
  m.def(
      "dcnv3_backward(Tensor grad_output, Tensor input, Tensor offset, Tensor mask, "
      "int[] kernel_size, int[] stride, int[] padding, int[] dilation, int groups, "
      "float offset_scale, bool remove_center, bool mask_softmax, bool need_input, "
      "bool deterministic) -> (Tensor, Tensor, Tensor)");
}
