// Arguments and sizes of deformable RoI pooling, shared by the devices.
#pragma once

#include "common/roi_pool.h"

namespace mmdcn {

// offset (rois, 2, out_h, out_w) has dx in channel 0 and dy in channel 1, in units of gamma times
// the size of the RoI; mask (rois, 1, out_h, out_w).
struct DeformRoiPoolShape : RoiPoolShape {
  double spatial_scale, gamma;
  int64_t sampling_ratio;
};

// Raises for every argument that does not fit; the message names it, what was expected and got.
DeformRoiPoolShape deform_roi_pool_shape(const Tensor& input, const Tensor& rois,
                                         const std::optional<Tensor>& offset,
                                         const std::optional<Tensor>& mask,
                                         const std::vector<int64_t>& output_size,
                                         double spatial_scale, int64_t sampling_ratio,
                                         double gamma);

}  // namespace mmdcn
