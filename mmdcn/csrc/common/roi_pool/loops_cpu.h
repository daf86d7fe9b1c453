// The inner loops of RoI pooling on the CPU, compiled for several instruction sets.
#pragma once

#include "common/roi_pool/plan_cpu.h"

namespace mmdcn::roi_pool {

constexpr int64_t kStrip = 32;  // channels that are pooled together

// Bins of a RoI, given as places in its plan. The loops below have kStrip channels for each of them
// in `values` and `grad`, and for each pixel of the map from first_row on in `image` and
// `grad_image`.
template <typename T>
struct BinList {
  const Tap<T>* taps;
  const Bin<T>* bins;
  const int32_t* list;
  int64_t count, width;
  int32_t first_row;

  // Positions of the channels of a row's first pixel, and of a pixel in its row.
  int64_t row(const Tap<T>& tap) const { return (tap.index - first_row) * width * kStrip; }
  static int64_t column(const Tap<T>& tap) { return tap.index * kStrip; }
};

void pool(const BinList<float>& b, const float* image, float* values);
void pool(const BinList<double>& b, const double* image, double* values);

// Contracts the pooled value and its derivatives along y and x, without the mask, with grad: three
// sums for each bin.
void contract(const BinList<float>& b, const float* image, const float* grad, float* sums);
void contract(const BinList<double>& b, const double* image, const double* grad, double* sums);

// The transpose of pool, added to grad_image.
void scatter(const BinList<float>& b, const float* grad, float* grad_image);
void scatter(const BinList<double>& b, const double* grad, double* grad_image);

}  // namespace mmdcn::roi_pool
