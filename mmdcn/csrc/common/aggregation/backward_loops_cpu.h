// The inner loops of the backward pass on the CPU, compiled for several instruction sets.
#pragma once

#include "common/aggregation/points_cpu.h"

namespace mmdcn::aggregation {

// Where the gradients of the neighbours are added up: laid out as the image, null if not needed.
// Only places in the window may be added to.
template <typename T>
struct InputSums {
  T* data;
  int64_t begin, size;  // of the window

  MMDCN_INLINE bool contains(int64_t place) const {
    return static_cast<uint64_t>(place - begin) < static_cast<uint64_t>(size);
  }
};

// Of the points in `block`, those of `range`, with their neighbours in `image` and `grad`, the
// output gradient of the first group of the first pixel:
// - dots[4 point + corner] = the dot product of the output gradient and the neighbour's channels,
// - the weighted output gradient is added to `sums`, unless null or the neighbour is outside the
//   window, where no neighbour is if the block is inside.
// Returns whether a neighbour in the image was outside the window.
#define MMDCN_DECLARE_BACKWARD(S)                                                                \
  bool backward_points(const Shape& s, const PointRange& range, const S* grad,                   \
                       const Image<S>& image, const Block<Compute<S>>& block,                    \
                       InputSums<Compute<S>> sums, Compute<S>* dots);                            \
  /* Adds to `sums` what backward_points leaves out, for a block that is not inside. */          \
  void add_strays(const Shape& s, const PointRange& range, const S* grad, const Image<S>& image, \
                  const Block<Compute<S>>& block, InputSums<Compute<S>> sums);
MMDCN_DECLARE_BACKWARD(double)
MMDCN_DECLARE_BACKWARD(float)
MMDCN_DECLARE_BACKWARD(BFloat16)
MMDCN_DECLARE_BACKWARD(Half)
#undef MMDCN_DECLARE_BACKWARD

// The gradients of offsets, (dx, dy) pairs, and tap weights of the first `count` points of a block,
// from the dot products; `scale` is the offsets'.
#define MMDCN_DECLARE_GRADIENTS(T)                                                   \
  void point_gradients(int64_t count, T scale, const T* dots, const Block<T>& block, \
                       T* grad_offset, T* grad_weight);
MMDCN_DECLARE_GRADIENTS(double)
MMDCN_DECLARE_GRADIENTS(float)
#undef MMDCN_DECLARE_GRADIENTS

// Copies `size` channels of each pixel, `from_stride` and `to_stride` elements from pixel to pixel.
#define MMDCN_DECLARE_COPY(From, To)                                                              \
  void copy_channels(int64_t pixels, int64_t size, const From* from, int64_t from_stride, To* to, \
                     int64_t to_stride);
MMDCN_DECLARE_COPY(double, double)
MMDCN_DECLARE_COPY(float, float)
MMDCN_DECLARE_COPY(BFloat16, BFloat16)
MMDCN_DECLARE_COPY(float, BFloat16)
MMDCN_DECLARE_COPY(Half, Half)
MMDCN_DECLARE_COPY(float, Half)
#undef MMDCN_DECLARE_COPY

}  // namespace mmdcn::aggregation
