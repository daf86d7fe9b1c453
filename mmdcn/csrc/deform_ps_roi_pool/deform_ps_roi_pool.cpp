#include "common/base/tensor.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def(
      "deform_ps_roi_pool(Tensor input, Tensor rois, Tensor? offset, Tensor? mask, "
      "int[] output_size, int output_channels, int group_size, int[] part_size, "
      "int sample_per_part, float spatial_scale, float trans_std) -> Tensor");
  // need_*: whether the gradients of input, of offset and mask are wanted; an unwanted gradient
  // comes back as an empty tensor. deterministic: gradients must be the same bits in every run (on
  // the CPU they always are).
  m.def(
      "deform_ps_roi_pool_backward(Tensor grad_output, Tensor input, Tensor rois, Tensor? offset, "
      "Tensor? mask, int[] output_size, int output_channels, int group_size, int[] part_size, "
      "int sample_per_part, float spatial_scale, float trans_std, bool need_input, "
      "bool need_offset, bool deterministic) -> (Tensor, Tensor, Tensor)");
}
