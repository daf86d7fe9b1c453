// The work on one tile of output pixels, shared by the forward and the backward pass on the CPU.
//
// Images are channels last here, so that a sampling point reads contiguous rows. The columns of a
// tile are laid out [pixel][group][tap][channel of group].
#pragma once

#include <vector>

#include "common/cpu/threads.h"
#include "common/cpu/gemm.h"
#include "deform_conv2d/deform_conv2d.h"

namespace mmdcn {

// A run of channels that lies within one group and one deform group.
struct Segment {
  int64_t channel, size;
  int64_t group, deform_group;
  int64_t group_channel;  // of the first channel, within its group
  int64_t column;         // of tap 0 in a row of columns; tap k is k * group_channels() later
};

std::vector<Segment> make_segments(const DeformConvShape& s, int64_t max_size);

// The weights as matrices [tap][channel of group] x [out channel of group], or transposed, of
// elements E, as columns are below.
template <typename E, typename S>
Panels<E> pack_weight(const DeformConvShape& s, const S* weight);
template <typename E, typename S>
Panels<E> pack_weight_transposed(const DeformConvShape& s, const S* weight);

// Which rows of an image are at hand, channels last. A corner index counts pixels from there; -1
// is a neighbour outside the image, and -2 - i is pixel i of the image when not at hand.
struct Band {
  int64_t first_row, rows;
};

// The sampling points of a tile as a structure of arrays, entry (deform group, tap, pixel). The
// mask is folded into the corner weights.
template <typename T>
struct Points {
  int64_t capacity;
  Buffer<int32_t> index;  // 4 corners
  Buffer<T> value;        // 4 corner weights, ly, lx, mask

  explicit Points(int64_t points)
      : capacity(points),
        index(make_buffer<int32_t>(4 * points)),
        value(make_buffer<T>(7 * points)) {}
  const T* ly() const { return value.get() + 4 * capacity; }
  const T* lx() const { return value.get() + 5 * capacity; }
  const T* mask() const { return value.get() + 6 * capacity; }
};

// Part of a Points: one tap of one deform group, from some pixel on.
template <typename T>
struct PointsView {
  const int32_t* index;
  const T* weight;
  int64_t stride;  // between corners

  PointsView(const Points<T>& points, int64_t at)
      : index(points.index.get() + at), weight(points.value.get() + at), stride(points.capacity) {}
};

// An image to sample from: `rows` holds the band channels last, `planes` the whole image channels
// first (null when the band is the whole image).
template <typename S>
struct SampledImage {
  const S* rows;
  const S* planes;
  int64_t channels, plane_size;
};

// Fills the points of pixels [first, first + count); those of tap k of deform group d go to
// (d * taps + k) * slots + slot. offset and mask (may be null) are those of one image.
template <typename S>
void locate_tile(const DeformConvShape& s, const S* offset, const S* mask, Band band, int64_t first,
                 int64_t count, Points<Compute<S>>& points, int64_t slot, int64_t slots);

// columns[i * ld + c] = the sample at point i of the segment's channel c.
template <typename S, typename E>
void sample_tile(const SampledImage<S>& image, const Segment& segment, int64_t count,
                 PointsView<Compute<S>> points, E* columns, int64_t ld);

// As sample_tile; also adds to dots[4 i + corner] the dot product over the channels of the
// columns' gradient and the neighbour.
template <typename S, typename E>
void sample_tile_with_dots(const SampledImage<S>& image, const Segment& segment, int64_t count,
                           PointsView<Compute<S>> points, const Compute<S>* grad_columns,
                           E* columns, int64_t ld, Compute<S>* dots);

// Adds the columns' gradient to the neighbours of each point in a channels-last gradient image.
template <typename T>
void scatter_tile(T* grad_image, int64_t channels, const Segment& segment, int64_t count,
                  PointsView<T> points, const T* grad_columns, int64_t ld);

}  // namespace mmdcn
