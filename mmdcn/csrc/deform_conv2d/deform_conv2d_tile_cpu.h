// The work on one tile of output pixels, shared by the forward and the backward pass on the CPU.
//
// Images are channels last here, so that a sampling point reads contiguous channels. The columns of
// a tile are laid out [pixel][group][tap][channel of group].
#pragma once

#include <vector>

#include "common/cpu/buffer.h"
#include "common/cpu/gemm.h"
#include "deform_conv2d/deform_conv2d.h"

namespace mmdcn::deform_conv2d {

// A run of channels that lies within one group and one deform group.
struct Segment {
  int64_t channel, size;
  int64_t group, deform_group;
  int64_t group_channel;  // of the first channel, within its group
  int64_t column;         // of tap 0 in a pixel's columns; tap k is k * group_channels() later
};

std::vector<Segment> make_segments(const Shape& s, int64_t max_size);

// The weights as matrices [tap][channel of group] x [out channel of group], or transposed, of
// elements E, as columns are below.
template <typename E, typename S>
Panels<E> pack_weight(const Shape& s, const S* weight);
template <typename E, typename S>
Panels<E> pack_weight_transposed(const Shape& s, const S* weight);

// Which rows of an image are at hand, channels last. A corner index counts pixels from there; -1
// is a neighbour outside the image, and -2 - i is pixel i of the image when not at hand.
struct Band {
  int64_t first_row, rows;
};

// The sampling points of a tile as a structure of arrays, entry (deform group, tap, pixel). The
// mask is folded into the corner weights.
template <typename T>
struct Points {
  int64_t pixels, capacity;
  Buffer<int32_t> index;  // 4 corners
  Buffer<T> value;        // 4 corner weights, ly, lx, mask

  Points(const Shape& s, int64_t tile)
      : pixels(tile),
        capacity(s.points() * tile),
        index(make_buffer<int32_t>(4 * capacity)),
        value(make_buffer<T>(7 * capacity)) {}
};

// Part of a Points: a tap of a deform group, `point` of them all, from some pixel of the tile on.
template <typename T>
struct PointsView {
  int32_t* index;
  T* weight;
  int64_t stride;  // between corners

  PointsView(const Points<T>& points, int64_t point, int64_t pixel)
      : index(points.index.get() + point * points.pixels + pixel),
        weight(points.value.get() + point * points.pixels + pixel),
        stride(points.capacity) {}
  const T* ly() const { return weight + 4 * stride; }
  const T* lx() const { return weight + 5 * stride; }
  const T* mask() const { return weight + 6 * stride; }
};

// Fills the points of output pixels [first, first + count) of an image, from `pixel` of the tile
// on.
template <typename S>
void locate_tile(const Shape& s, const PointTensors<S>& tensors, Band band, int64_t first,
                 int64_t count, const Points<Compute<S>>& points, int64_t pixel);

// An image to sample from: `band` holds the rows at hand channels last, `planes` the whole image
// channels first (null when the band is the whole image).
template <typename S>
struct SampledImage {
  const S* band;
  const S* planes;
  int64_t channels, plane_size;
};

// columns[i * ld + c] = the sample at point i of the segment's channel c.
#define MMDCN_DECLARE_SAMPLE(S, E)                                                                \
  void sample_tile(const SampledImage<S>& image, const Segment& segment, int64_t count,           \
                   PointsView<Compute<S>> points, E* columns, int64_t ld);                        \
  /* Also adds to dots[4 i + corner] the dot product over the channels of the columns' */         \
  /* gradient and the neighbour.                                                       */         \
  void sample_tile_with_dots(const SampledImage<S>& image, const Segment& segment, int64_t count, \
                             PointsView<Compute<S>> points, const Compute<S>* grad_columns,       \
                             E* columns, int64_t ld, Compute<S>* dots);
MMDCN_DECLARE_SAMPLE(double, double)
MMDCN_DECLARE_SAMPLE(float, float)
MMDCN_DECLARE_SAMPLE(BFloat16, float)
MMDCN_DECLARE_SAMPLE(BFloat16, BFloat16)
MMDCN_DECLARE_SAMPLE(Half, float)
#undef MMDCN_DECLARE_SAMPLE

// Adds the columns' gradient to the neighbours of each point in a channels-last gradient image.
#define MMDCN_DECLARE_SCATTER(T)                                                            \
  void scatter_tile(T* grad_image, int64_t channels, const Segment& segment, int64_t count, \
                    PointsView<T> points, const T* grad_columns, int64_t ld);
MMDCN_DECLARE_SCATTER(double)
MMDCN_DECLARE_SCATTER(float)
#undef MMDCN_DECLARE_SCATTER

}  // namespace mmdcn::deform_conv2d
