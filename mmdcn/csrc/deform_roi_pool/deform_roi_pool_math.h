// Where the bins of a deformable RoI sample, for host and device.
#pragma once

#include "common/roi_pool/roi_math.h"

namespace mmdcn::deform_roi_pool {

// One axis of a RoI: `points` samples per bin, evenly spaced. A RoI may have a negative size.
template <typename T>
struct Axis {
  T start, size, bin;
  int32_t points;

  // Position of sample k of bin i of a RoI that is shifted by `shift`.
  MMDCN_HOST_DEVICE T position(T shift, int64_t i, int32_t k) const {
    return (start + shift) + static_cast<T>(i) * bin +
           (static_cast<T>(k) + T(0.5)) * bin / static_cast<T>(points);
  }

  // Points further than a pixel outside the map count as 0.
  static MMDCN_HOST_DEVICE bool counts(T position, int64_t map_size) {
    return position >= T(-1) && position <= static_cast<T>(map_size);
  }
};

// An adaptive grid (sampling_ratio 0) has a sample per pixel, at most 4 map_size in a bin: a RoI
// that needs more lies mostly outside the map.
template <typename T>
MMDCN_HOST_DEVICE Axis<T> make_axis(T begin, T end, T spatial_scale, int64_t bins,
                                    int64_t sampling_ratio, int64_t map_size) {
  Axis<T> axis;
  axis.start = begin * spatial_scale - T(0.5);
  axis.size = (end * spatial_scale - T(0.5)) - axis.start;
  axis.bin = axis.size / static_cast<T>(bins);
  const T adaptive = roi_pool::clamp_to(std::ceil(axis.bin), T(0), T(4) * static_cast<T>(map_size));
  const T points = sampling_ratio > 0 ? static_cast<T>(sampling_ratio) : adaptive;
  axis.points = roi_pool::is_finite(points) ? static_cast<int32_t>(points) : 0;
  return axis;
}

}  // namespace mmdcn::deform_roi_pool
