#include "common/base/tensor.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def(
      "deform_conv2d(Tensor input, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, "
      "int[] stride, int[] padding, int[] dilation, int groups, int deform_groups) -> Tensor");
  // need_*: whether the gradients of input, of offset and mask, of weight and bias are wanted;
  // an unwanted gradient comes back as an empty tensor. deterministic: gradients must be the same
  // bits in every run (on the CPU they always are).
  m.def(
      "deform_conv2d_backward(Tensor grad_output, Tensor input, Tensor offset, Tensor? mask, "
      "Tensor weight, int[] stride, int[] padding, int[] dilation, int groups, "
      "int deform_groups, bool need_input, bool need_offset, bool need_weight, "
      "bool deterministic) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
