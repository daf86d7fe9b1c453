// Arguments and sizes of deformable position-sensitive RoI pooling, shared by the devices.
#pragma once

#include "common/roi_pool/roi_pool.h"

namespace mmdcn::deform_ps_roi_pool {

// offset (rois, 2 offset_groups, part_h, part_w) has dx of group g in channel 2 g and dy right
// after it, in units of trans_std times the size of the RoI; mask (rois, offset_groups, part_h,
// part_w).
struct Shape : roi_pool::Shape {
  int64_t part_h, part_w, samples;
  double spatial_scale, trans_std;

  int64_t parts() const { return part_h * part_w; }
  int64_t part_of(int64_t bin) const {
    return bin / out_w * part_h / out_h * part_w + bin % out_w * part_w / out_w;
  }
};

// Raises for every argument that does not fit; the message names it, what was expected and got.
inline Shape make_shape(const Tensor& input, const Tensor& rois,
                        const std::optional<Tensor>& offset, const std::optional<Tensor>& mask,
                        const std::vector<int64_t>& output_size, int64_t output_channels,
                        int64_t group_size, const std::vector<int64_t>& part_size,
                        int64_t sample_per_part, double spatial_scale, double trans_std) {
  const roi_pool::Shape common = roi_pool::make_shape(input, rois, output_size, spatial_scale);
  check_positive(output_channels, "output_channels");
  check_positive(group_size, "group_size");
  check_pair(part_size, "part_size", 1);
  MMDCN_CHECK(sample_per_part > 0 && sample_per_part <= roi_pool::kMaxSamplingRatio,
              "sample_per_part: expected an integer in [1, ", roi_pool::kMaxSamplingRatio,
              "], got ", sample_per_part);
  MMDCN_CHECK(std::isfinite(trans_std), "trans_std: expected a finite number, got ", trans_std);
  Shape s{common, part_size[0], part_size[1], sample_per_part, spatial_scale, trans_std};
  s.out_channels = output_channels;
  s.group_h = s.group_w = group_size;
  const int64_t channels = product("input", {output_channels, group_size, group_size});
  check_shape(input, "input", {s.batch, channels, s.height, s.width});
  bool known = false;
  const auto check_classes = [&](const Tensor& tensor, const char* name, int64_t per_class) {
    check_like(tensor, name, input, "input");
    check_dim(tensor, name, 4);
    const int64_t channels = tensor.size(1), classes = channels / per_class;
    MMDCN_CHECK(channels % per_class == 0 && classes > 0 && output_channels % classes == 0, name,
                ": expected ", per_class,
                " channels per class, in a number of classes that divides output_channels (",
                output_channels, "), got ", channels, " channels");
    if (!known) s.offset_groups = classes;
    known = true;
    check_shape(tensor, name, {s.rois, per_class * s.offset_groups, s.part_h, s.part_w});
  };
  if (offset) check_classes(*offset, "offset", 2);
  if (mask) check_classes(*mask, "mask", 1);
  return s;
}

}  // namespace mmdcn::deform_ps_roi_pool
