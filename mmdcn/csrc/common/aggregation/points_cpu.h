// Sampling points of dcnv3 and dcnv4 on the CPU, shared by the forward and the backward pass.
//
// Points (coordinates, corner weights, softmax) are computed for a block of pixels at once, with
// the taps of all its pixels in one vectorised loop; then each point reads four rows of channels.
#pragma once

#include "common/cpu/threads.h"
#include "common/cpu/vec.h"
#include "common/aggregation/aggregation.h"

namespace mmdcn {

constexpr int64_t kBlockPoints = 144;  // their fields fit a first-level cache

struct RowRange {
  int64_t begin, end;
};

// The points of a block as a structure of arrays, entry (pixel, group, tap).
template <typename T>
struct Block {
  int64_t capacity;
  // Offset of a neighbour's channels in the image: of the first neighbour alone where all points of
  // the block are `inside`, with all neighbours in given rows, else of each of the four.
  bool inside = false;
  Buffer<int32_t> first;
  Buffer<int64_t> row;
  Buffer<T> value;  // see Field

  explicit Block(int64_t points)
      : capacity(points),
        first(make_buffer<int32_t>(points)),
        row(make_buffer<int64_t>(4 * points)),
        value(make_buffer<T>(9 * points)) {}
  T* field(int64_t i) const { return value.get() + i * capacity; }
};

// The offsets and weights of a point's neighbours in a block that is, or is not, inside. Pointers,
// so that they stay in registers while vectors are stored, which may alias anything.
template <bool kInside, typename T>
struct Neighbours {
  const int32_t* first;
  const int64_t* row;
  const T* value;
  int64_t capacity, right, below;

  Neighbours(const Block<T>& block, int64_t pixel_stride, int64_t width)
      : first(block.first.get()),
        row(block.row.get()),
        value(block.value.get()),
        capacity(block.capacity),
        right(pixel_stride),
        below(pixel_stride * width) {}
  MMDCN_INLINE int64_t offset(int64_t point, int corner) const {
    if constexpr (kInside) {
      return first[point] + (corner & 1 ? right : 0) + (corner & 2 ? below : 0);
    } else {
      return row[corner * capacity + point];
    }
  }
  MMDCN_INLINE T weight(int64_t point, int corner) const {
    return value[corner * capacity + point];
  }
};

// Corner weights include the tap's.
enum Field { kWeight00, kWeight01, kWeight10, kWeight11, kLy, kLx, kTapWeight, kY, kX };

// An image, `stride` elements from pixel to pixel, and a row of zeros that stands in for missing
// neighbours, found at offset `missing`.
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
  const S* row(int64_t offset) const {
    return reinterpret_cast<const S*>(reinterpret_cast<intptr_t>(data) +
                                      offset * static_cast<intptr_t>(sizeof(S)));
  }
};

// Kernel grid, relative to the output position times the stride: one entry a tap.
template <typename T>
struct Grid {
  Buffer<T> x, y;
  T scale;

  explicit Grid(const DCNv3Shape& s)
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

// Asks for what the points of a block some rows further down will read: in an order of no use to
// the hardware's prefetchers. `image` has `size` elements a pixel.
template <typename T>
inline void prefetch_below(const DCNv3Shape& s, const T* image, int64_t size, int64_t first,
                           int64_t count) {
  const int64_t row = first / s.out_w * s.stride_h + s.dilation_h * (s.kernel_h - 1) - s.pad_h;
  const int64_t begin =
      std::max<int64_t>(0, (row + kReach) * s.width + first % s.out_w * s.stride_w);
  const int64_t end = std::min(begin + count * s.stride_w, s.height * s.width);
  const char* const base = reinterpret_cast<const char*>(image);
  const int64_t bytes = size * static_cast<int64_t>(sizeof(T));
  for (int64_t at = begin * bytes; at < end * bytes; at += 64) __builtin_prefetch(base + at, 0, 2);
}

// Fills a block with the points of groups [group, group + groups) at pixels [first, first + count)
// of image n, `stride` elements from pixel to pixel. The block is inside if all neighbours are in
// these rows of the image.
template <typename S>
void locate_points(const DCNv3Shape& s, const Grid<Compute<S>>& grid,
                   const DCNv3Points<const S>& points, bool softmax, int32_t stride,
                   int64_t missing, int64_t n, int64_t first, int64_t count, int64_t group,
                   int64_t groups, RowRange rows, Block<Compute<S>>& block);

}  // namespace mmdcn
