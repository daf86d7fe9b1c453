// Sizes and checks that the RoI operators share.
#pragma once

#include <cmath>

#include "common/base/checks.h"

namespace mmdcn::roi_pool {

// Input (batch, out_channels * cells, height, width), output (rois, out_channels, out_h, out_w).
// Position-sensitive pooling lays group_h x group_w cells over a RoI, and bin b of channel c reads
// input channel c * cells + cell_of(b); plain pooling has one cell.
struct Shape {
  int64_t batch, height, width;
  int64_t rois, out_channels, out_h, out_w;
  int64_t group_h = 1, group_w = 1;
  // Runs of output channels that have offsets and masks of their own.
  int64_t offset_groups = 1;

  int64_t cells() const { return group_h * group_w; }
  int64_t bins() const { return out_h * out_w; }
  int64_t channels() const { return out_channels * cells(); }
  int64_t pixels() const { return height * width; }
  int64_t cell_of(int64_t bin) const {
    return bin / out_w * group_h / out_h * group_w + bin % out_w * group_w / out_w;
  }
};

// A larger sampling grid in a bin is surely a mistake.
constexpr int64_t kMaxSamplingRatio = 1024;

// The largest number up to which a dtype holds all integers, as batch indices are.
inline int64_t largest_index(ScalarType type) {
  switch (type) {
    case ScalarType::BFloat16:
      return 1 << 8;
    case ScalarType::Half:
      return 1 << 11;
    default:
      return 1 << 24;
  }
}

// The part of the checks that is the same everywhere; out_channels is set to the input's.
inline Shape make_shape(const Tensor& input, const Tensor& rois,
                        const std::vector<int64_t>& output_size, double spatial_scale) {
  check_dim(input, "input", 4);
  check_floating(input, "input");
  check_dim(rois, "rois", 2);
  check_shape(rois, "rois", {rois.size(0), 5});
  check_floating(rois, "rois");
  MMDCN_CHECK(rois.device() == input.device(),
              "rois: expected the device of input, got another device");
  check_pair(output_size, "output_size", 1);
  MMDCN_CHECK(spatial_scale > 0 && std::isfinite(spatial_scale),
              "spatial_scale: expected a positive number, got ", spatial_scale);
  Shape s{input.size(0), input.size(2),  input.size(3), rois.size(0),
          input.size(1), output_size[0], output_size[1]};
  MMDCN_CHECK(s.height > 0 && s.width > 0 && s.out_channels > 0,
              "input: expected at least one channel and one pixel, got shape ",
              shape_string(input));
  check_map_size(s.height, s.width);
  MMDCN_CHECK(s.bins() <= kMaxSize, "output_size: expected fewer than 2^31 bins, got ", s.out_h,
              "x", s.out_w);
  MMDCN_CHECK(s.batch <= largest_index(rois.scalar_type()) + 1, "rois: the dtype ",
              torch::headeronly::toString(rois.scalar_type()), " holds batch indices up to ",
              largest_index(rois.scalar_type()), " exactly, and input has ", s.batch,
              " images; use float32");
  return s;
}

inline void check_grad_output(const Tensor& grad_output, const Shape& s, const Tensor& input) {
  check_shape(grad_output, "grad_output", {s.rois, s.out_channels, s.out_h, s.out_w});
  check_like(grad_output, "grad_output", input, "input");
}

}  // namespace mmdcn::roi_pool
