// Arguments and sizes of (modulated) deformable convolution, shared by the devices.
#pragma once

#include "common/base/sliding_window.h"

namespace mmdcn::deform_conv2d {

// offset holds, for deform group d and tap k, dy at channel 2 (d K + k) and dx right after it;
// mask holds one channel per (d, k).
struct Shape : SlidingWindow {
  int64_t batch, channels, out_channels, groups, deform_groups;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t pixels() const { return height * width; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_out_channels() const { return out_channels / groups; }
  int64_t points() const { return deform_groups * taps(); }          // of an output pixel
  int64_t group_depth() const { return taps() * group_channels(); }  // of the matrix product
  int64_t depth() const { return groups * group_depth(); }
};

// Offsets and mask, which may be null, of a batch or of one of its images.
template <typename S>
struct PointTensors {
  const S *offset, *mask;

  PointTensors of_image(const Shape& s, int64_t n) const {
    const int64_t at = n * s.points() * s.out_pixels();
    return {offset + 2 * at, mask ? mask + at : nullptr};
  }
};

// Raises for every argument that does not fit; the message names it, what was expected and got.
inline Shape make_shape(const Tensor& input, const Tensor& offset,
                        const std::optional<Tensor>& mask, const Tensor& weight,
                        const std::optional<Tensor>& bias, const std::vector<int64_t>& stride,
                        const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation,
                        int64_t groups, int64_t deform_groups) {
  check_dim(input, "input", 4);
  check_dim(weight, "weight", 4);
  check_floating(input, "input");
  check_like(offset, "offset", input, "input");
  if (mask) check_like(*mask, "mask", input, "input");
  check_like(weight, "weight", input, "input");
  if (bias) check_like(*bias, "bias", input, "input");
  check_window(stride, padding, dilation);
  check_positive(groups, "groups");
  check_positive(deform_groups, "deform_groups");
  const int64_t channels = input.size(1), out_channels = weight.size(0);
  const int64_t kernel_h = weight.size(2), kernel_w = weight.size(3);
  MMDCN_CHECK(channels > 0 && channels % groups == 0, "groups: expected a divisor of the ",
              channels, " input channels, got ", groups);
  MMDCN_CHECK(channels % deform_groups == 0, "deform_groups: expected a divisor of the ", channels,
              " input channels, got ", deform_groups);
  MMDCN_CHECK(out_channels > 0 && out_channels % groups == 0,
              "weight: expected a positive number of output channels that groups (", groups,
              ") divides, got ", out_channels);
  MMDCN_CHECK(kernel_h > 0 && kernel_w > 0, "weight: expected a non-empty kernel, got ", kernel_h,
              "x", kernel_w);
  check_shape(weight, "weight", {out_channels, channels / groups, kernel_h, kernel_w});
  const Shape s{
      sliding_window(input.size(2), input.size(3), kernel_h, kernel_w, stride, padding, dilation),
      input.size(0),
      channels,
      out_channels,
      groups,
      deform_groups};
  const int64_t points = product("offset", {2, deform_groups, kernel_h, kernel_w}) / 2;
  check_shape(offset, "offset", {s.batch, 2 * points, s.out_h, s.out_w});
  if (mask) check_shape(*mask, "mask", {s.batch, points, s.out_h, s.out_w});
  if (bias) check_shape(*bias, "bias", {s.out_channels});
  return s;
}

}  // namespace mmdcn::deform_conv2d
