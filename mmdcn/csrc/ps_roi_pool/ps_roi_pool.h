// Arguments and sizes of position-sensitive RoI pooling, shared by the devices.
#pragma once

#include "common/roi_pool/roi_pool.h"

namespace mmdcn {

// One cell per bin. Raises for every argument that does not fit; the message names it, what was
// expected and got.
inline RoiPoolShape ps_roi_pool_shape(const Tensor& input, const Tensor& rois,
                                      const std::vector<int64_t>& output_size,
                                      double spatial_scale) {
  RoiPoolShape s = roi_pool_shape(input, rois, output_size, spatial_scale);
  s.group_h = s.out_h;
  s.group_w = s.out_w;
  STD_TORCH_CHECK(input.size(1) % s.cells() == 0, "input: expected channels that output_size ",
                  s.out_h, "x", s.out_w, " divides, got shape ", shape_string(input));
  s.out_channels = input.size(1) / s.cells();
  return s;
}

}  // namespace mmdcn
