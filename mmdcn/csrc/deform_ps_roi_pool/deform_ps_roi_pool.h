// Arguments and sizes of deformable position-sensitive RoI pooling, shared by the devices.
#pragma once

#include "common/roi_pool.h"

namespace mmdcn {

// offset (rois, 2 offset_groups, part_h, part_w) has dx of group g in channel 2 g and dy right
// after it, in units of trans_std times the size of the RoI; mask (rois, offset_groups, part_h,
// part_w).
struct DeformPSRoiPoolShape : RoiPoolShape {
  int64_t part_h, part_w, samples;
  double spatial_scale, trans_std;

  int64_t parts() const { return part_h * part_w; }
  int64_t part_of(int64_t bin) const {
    return bin / out_w * part_h / out_h * part_w + bin % out_w * part_w / out_w;
  }
};

// Raises for every argument that does not fit; the message names it, what was expected and got.
DeformPSRoiPoolShape deform_ps_roi_pool_shape(
    const Tensor& input, const Tensor& rois, const std::optional<Tensor>& offset,
    const std::optional<Tensor>& mask, const std::vector<int64_t>& output_size,
    int64_t output_channels, int64_t group_size, const std::vector<int64_t>& part_size,
    int64_t sample_per_part, double spatial_scale, double trans_std);

}  // namespace mmdcn
