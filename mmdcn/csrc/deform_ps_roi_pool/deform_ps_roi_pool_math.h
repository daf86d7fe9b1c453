// Where the bins of deformable position-sensitive RoI pooling sample, for host and device.
#pragma once

#include "common/roi_pool/roi_math.h"

namespace mmdcn::deform_ps_roi_pool {

// One axis of a RoI: corners are rounded in the image, the far pixel belongs to the RoI.
template <typename T>
struct Axis {
  T start, size, bin, step;

  // Position of sample k of bin i when it is shifted by `shift`.
  MMDCN_HOST_DEVICE T position(T shift, int64_t i, int64_t k) const {
    return (static_cast<T>(i) * bin + start + shift) + static_cast<T>(k) * step;
  }

  // Points further than half a pixel outside the map do not count.
  static MMDCN_HOST_DEVICE bool counts(T position, int64_t map_size) {
    return position >= T(-0.5) && position <= static_cast<T>(map_size) - T(0.5);
  }
};

template <typename T>
MMDCN_HOST_DEVICE Axis<T> make_axis(T begin, T end, T spatial_scale, int64_t bins,
                                    int64_t samples) {
  Axis<T> axis;
  axis.start = std::round(begin) * spatial_scale - T(0.5);
  const T size = ((std::round(end) + T(1)) * spatial_scale - T(0.5)) - axis.start;
  axis.size = size < T(0.1) ? T(0.1) : size;
  axis.bin = axis.size / static_cast<T>(bins);
  axis.step = axis.bin / static_cast<T>(samples);
  return axis;
}

}  // namespace mmdcn::deform_ps_roi_pool
