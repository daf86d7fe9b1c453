#include "common/base/tensor.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def(
      "deform_roi_pool(Tensor input, Tensor rois, Tensor? offset, Tensor? mask, "
      "int[] output_size, float spatial_scale, int sampling_ratio, float gamma) -> Tensor");
  // need_*: whether the gradients of input, of offset and mask are wanted; an unwanted gradient
  // comes back as an empty tensor. deterministic: gradients must be the same bits in every run (on
  // the CPU they always are).
  m.def(
      "deform_roi_pool_backward(Tensor grad_output, Tensor input, Tensor rois, Tensor? offset, "
      "Tensor? mask, int[] output_size, float spatial_scale, int sampling_ratio, float gamma, "
      "bool need_input, bool need_offset, bool deterministic) -> (Tensor, Tensor, Tensor)");
}
