// Arguments and sizes of deformable RoI pooling, shared by the devices.
#pragma once

#include "common/roi_pool/roi_pool.h"

namespace mmdcn::deform_roi_pool {

// offset (rois, 2, out_h, out_w) has dx in channel 0 and dy in channel 1, in units of gamma times
// the size of the RoI; mask (rois, 1, out_h, out_w).
struct Shape : roi_pool::Shape {
  double spatial_scale, gamma;
  int64_t sampling_ratio;
};

// Raises for every argument that does not fit; the message names it, what was expected and got.
inline Shape make_shape(const Tensor& input, const Tensor& rois,
                        const std::optional<Tensor>& offset, const std::optional<Tensor>& mask,
                        const std::vector<int64_t>& output_size, double spatial_scale,
                        int64_t sampling_ratio, double gamma) {
  const Shape s{roi_pool::make_shape(input, rois, output_size, spatial_scale), spatial_scale, gamma,
                sampling_ratio};
  MMDCN_CHECK(sampling_ratio >= 0 && sampling_ratio <= roi_pool::kMaxSamplingRatio,
              "sampling_ratio: expected an integer in [0, ", roi_pool::kMaxSamplingRatio, "], got ",
              sampling_ratio);
  MMDCN_CHECK(std::isfinite(gamma), "gamma: expected a finite number, got ", gamma);
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

}  // namespace mmdcn::deform_roi_pool
