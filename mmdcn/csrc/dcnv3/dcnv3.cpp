#include "common/base/tensor.h"

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
