#include "common/base/tensor.h"

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def("ps_roi_pool(Tensor input, Tensor rois, int[] output_size, float spatial_scale) -> Tensor");
  // deterministic: the gradient must be the same bits in every run (on the CPU it always is).
  m.def(
      "ps_roi_pool_backward(Tensor grad_output, Tensor input, Tensor rois, int[] output_size, "
      "float spatial_scale, bool deterministic) -> Tensor");
}
