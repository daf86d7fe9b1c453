// Sampling points on the CPU, shared by the forward and the backward pass.
//
// Points (coordinates, corner weights, softmax) are computed for a block of pixels at once, with
// the taps of all its pixels in one vectorised loop; then each point reads the channels of four
// neighbours.
#pragma once

#include "common/aggregation/aggregation.h"
#include "common/cpu/buffer.h"
#include "common/cpu/vec.h"

namespace mmdcn::aggregation {

constexpr int64_t kBlockPoints = 144;  // their fields fit a first-level cache

// Rows of an image.
struct RowRange {
  int64_t begin, end;
};

// The points of groups [group, group + groups) at output pixels [first, first + count) of image n.
struct PointRange {
  int64_t n, first, count, group, groups;
};

// The points of a range as a structure of arrays, entry (pixel, group, tap).
template <typename T>
struct Block {
  int64_t capacity;
  // Place of a neighbour's channels, in elements of the image: of the first neighbour alone where
  // all points of the block are `inside`, with all neighbours in given rows, else of each of the
  // four.
  bool inside = false;
  Buffer<int32_t> first;
  Buffer<int64_t> places;
  Buffer<T> value;  // see Field

  explicit Block(int64_t points)
      : capacity(points),
        first(make_buffer<int32_t>(points)),
        places(make_buffer<int64_t>(4 * points)),
        value(make_buffer<T>(9 * points)) {}
  T* field(int64_t i) const { return value.get() + i * capacity; }
};

// Corner weights include the tap's.
enum Field { kWeight00, kWeight01, kWeight10, kWeight11, kLy, kLx, kTapWeight, kY, kX };

// The places and weights of a point's neighbours in a block that is, or is not, inside. Pointers,
// so that they stay in registers while vectors are stored, which may alias anything.
template <bool kInside, typename T>
struct Neighbours {
  const int32_t* first;
  const int64_t* places;
  const T* value;
  int64_t capacity, right, below;

  Neighbours(const Block<T>& block, int64_t pixel_stride, int64_t width)
      : first(block.first.get()),
        places(block.places.get()),
        value(block.value.get()),
        capacity(block.capacity),
        right(pixel_stride),
        below(pixel_stride * width) {}
  MMDCN_INLINE int64_t place(int64_t point, int corner) const {
    if constexpr (kInside) {
      return first[point] + (corner & 1 ? right : 0) + (corner & 2 ? below : 0);
    } else {
      return places[corner * capacity + point];
    }
  }
  MMDCN_INLINE T weight(int64_t point, int corner) const {
    return value[corner * capacity + point];
  }
};

// An image, `stride` elements from pixel to pixel, and channels of zeros that stand in for missing
// neighbours, found at the place `missing`.
template <typename S>
struct Image {
  const S* data;
  int32_t stride;
  int64_t missing;

  Image(const S* image, int64_t stride, const S* zeros)
      : data(image),
        stride(static_cast<int32_t>(stride)),
        missing((reinterpret_cast<intptr_t>(zeros) - reinterpret_cast<intptr_t>(image)) /
                static_cast<intptr_t>(sizeof(S))) {}
  const S* at(int64_t place) const {
    return reinterpret_cast<const S*>(reinterpret_cast<intptr_t>(data) +
                                      place * static_cast<intptr_t>(sizeof(S)));
  }
};

// Kernel grid, relative to the output position times the stride: one entry a tap.
template <typename T>
struct Grid {
  Buffer<T> x, y;
  T scale;

  explicit Grid(const Shape& s)
      : x(make_buffer<T>(s.taps())),
        y(make_buffer<T>(s.taps())),
        scale(static_cast<T>(s.offset_scale)) {
    const int64_t half_w = s.dilation_w * (s.kernel_w - 1) / 2;
    const int64_t half_h = s.dilation_h * (s.kernel_h - 1) / 2;
    int64_t tap = 0;
    for (int64_t i = 0; i < s.kernel_w; ++i) {
      for (int64_t j = 0; j < s.kernel_h; ++j) {
        if (s.remove_center && 2 * i + 1 == s.kernel_w && 2 * j + 1 == s.kernel_h) continue;
        x[tap] = half_w - s.pad_w + (i * s.dilation_w - half_w) * scale;
        y[tap] = half_h - s.pad_h + (j * s.dilation_h - half_h) * scale;
        ++tap;
      }
    }
  }
};

// What points are computed from.
template <typename S>
struct Sampler {
  const Shape& s;
  const Points<const S>& points;
  const Grid<Compute<S>> grid{s};
};

// Fills a block with the points of a range. It is inside if all neighbours are in these rows.
#define MMDCN_DECLARE_LOCATE(S)                                                                 \
  void locate_points(const Sampler<S>& sampler, const PointRange& range, const Image<S>& image, \
                     RowRange rows, Block<Compute<S>>& block);
MMDCN_DECLARE_LOCATE(double)
MMDCN_DECLARE_LOCATE(float)
MMDCN_DECLARE_LOCATE(BFloat16)
MMDCN_DECLARE_LOCATE(Half)
#undef MMDCN_DECLARE_LOCATE

// Calls f(taps, inside) with constants, 0 for a number of taps that the compiler doesn't know.
template <typename F>
MMDCN_INLINE void specialize(int64_t taps, bool inside, const F& f) {
  const auto run = [&](auto constant) __attribute__((always_inline)) {
    if (inside) {
      f(constant, std::true_type{});
    } else {
      f(constant, std::false_type{});
    }
  };
  if (taps == 9) {
    run(Int<9>{});
  } else {
    run(Int<0>{});
  }
}

// Rows of the input below the kernel that offsets reach often.
constexpr int64_t kReach = 4;

// Asks for what the points of a range some rows further down will read: in an order of no use to
// the hardware's prefetchers. `image` has `size` elements a pixel.
template <typename T>
inline void prefetch_below(const Shape& s, const T* image, int64_t size, const PointRange& range) {
  const int64_t y = range.first / s.out_w, x = range.first % s.out_w;
  const int64_t row = y * s.stride_h + s.dilation_h * (s.kernel_h - 1) - s.pad_h;
  const int64_t begin = std::max<int64_t>(0, (row + kReach) * s.width + x * s.stride_w);
  const int64_t end = std::min(begin + range.count * s.stride_w, s.height * s.width);
  const char* const base = reinterpret_cast<const char*>(image);
  const int64_t bytes = size * static_cast<int64_t>(sizeof(T));
  for (int64_t at = begin * bytes; at < end * bytes; at += 64) __builtin_prefetch(base + at, 0, 2);
}

}  // namespace mmdcn::aggregation
