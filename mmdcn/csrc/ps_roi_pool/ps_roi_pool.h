// Position-sensitive RoI pooling: arguments, and the pixels that a bin covers, for host and device.
#pragma once

#include "common/roi_pool/roi_math.h"
#include "common/roi_pool/roi_pool.h"

namespace mmdcn::ps_roi_pool {

struct Op {
  // One cell per bin. Raises for every argument that does not fit.
  static roi_pool::Shape make_shape(const Tensor& input, const Tensor& rois,
                                    const std::vector<int64_t>& output_size, double spatial_scale) {
    roi_pool::Shape s = roi_pool::make_shape(input, rois, output_size, spatial_scale);
    s.group_h = s.out_h;
    s.group_w = s.out_w;
    MMDCN_CHECK(input.size(1) % s.cells() == 0, "input: expected channels that output_size ",
                s.out_h, "x", s.out_w, " divides, got shape ", shape_string(input));
    s.out_channels = input.size(1) / s.cells();
    return s;
  }

  // Along one axis. Corners are rounded, the far one does not belong to the RoI, and bins are
  // clipped so that the last row and column of the map are never read.
  template <typename T>
  static MMDCN_HOST_DEVICE roi_pool::PixelRange range(T begin, T end, T spatial_scale, int64_t bin,
                                                      int64_t bins, int64_t map_size) {
    const int64_t start = roi_pool::rounded_corner(begin * spatial_scale);
    const int64_t size = roi_pool::rounded_corner(end * spatial_scale) - start;
    return roi_pool::bin_pixels(bin, bins, start, size < 1 ? 1 : size, map_size - 1);
  }
};

}  // namespace mmdcn::ps_roi_pool
