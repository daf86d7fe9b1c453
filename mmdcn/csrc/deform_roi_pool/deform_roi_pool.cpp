#include "deform_roi_pool/deform_roi_pool.h"

namespace mmdcn {

DeformRoiPoolShape deform_roi_pool_shape(const Tensor& input, const Tensor& rois,
                                         const std::optional<Tensor>& offset,
                                         const std::optional<Tensor>& mask,
                                         const std::vector<int64_t>& output_size,
                                         double spatial_scale, int64_t sampling_ratio,
                                         double gamma) {
  const DeformRoiPoolShape s{roi_pool_shape(input, rois, output_size, spatial_scale), spatial_scale,
                             gamma, sampling_ratio};
  STD_TORCH_CHECK(sampling_ratio >= 0 && sampling_ratio <= kMaxSamplingRatio,
                  "sampling_ratio: expected an integer in [0, ", kMaxSamplingRatio, "], got ",
                  sampling_ratio);
  STD_TORCH_CHECK(std::isfinite(gamma), "gamma: expected a finite number, got ", gamma);
  if (offset) {
    check_like(*offset, "offset", input, "input");
    check_shape(*offset, "offset", {s.rois, 2, s.out_h, s.out_w});
  }
  if (mask) {
    check_like(*mask, "mask", input, "input");
    check_shape(*mask, "mask", {s.rois, 1, s.out_h, s.out_w});
  }
  return s;
}

}  // namespace mmdcn

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
