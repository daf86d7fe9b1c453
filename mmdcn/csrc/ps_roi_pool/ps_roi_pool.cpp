#include "ps_roi_pool/ps_roi_pool.h"

namespace mmdcn {

RoiPoolShape ps_roi_pool_shape(const Tensor& input, const Tensor& rois,
                               const std::vector<int64_t>& output_size, double spatial_scale) {
  RoiPoolShape s = roi_pool_shape(input, rois, output_size, spatial_scale);
  s.group_h = s.out_h;
  s.group_w = s.out_w;
  STD_TORCH_CHECK(input.size(1) % s.cells() == 0, "input: expected channels that output_size ",
                  s.out_h, "x", s.out_w, " divides, got shape ", shape_string(input));
  s.out_channels = input.size(1) / s.cells();
  return s;
}

}  // namespace mmdcn

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def("ps_roi_pool(Tensor input, Tensor rois, int[] output_size, float spatial_scale) -> Tensor");
  // deterministic: the gradient must be the same bits in every run (on the CPU it always is).
  m.def(
      "ps_roi_pool_backward(Tensor grad_output, Tensor input, Tensor rois, int[] output_size, "
      "float spatial_scale, bool deterministic) -> Tensor");
}
