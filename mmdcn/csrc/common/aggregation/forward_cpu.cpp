// Forward pass of dcnv3 and dcnv4 on the CPU. Threads own pixels.
#include "common/aggregation/points_cpu.h"

namespace mmdcn {
namespace {

// One (pixel, group): kVectors vectors of N channels from `channel` on.
template <int kVectors, int N, bool kInside, typename S, typename T>
MMDCN_INLINE void aggregate_chunk(int64_t taps, const Image<S>& image, int64_t channel,
                                  Neighbours<kInside, T> neighbours, int64_t point, S* out) {
  Vec<T, N> sum[4][kVectors] = {};  // a chain of additions per corner
  for (int64_t k = 0; k < taps; ++k) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const S* row = image.row(neighbours.offset(point + k, corner) + channel);
      const T w = neighbours.weight(point + k, corner);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[corner][v] += w * load_vec<N>(row + v * N);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    store_vec<N>(out + channel + v * N, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
  }
}

template <int kTaps, bool kInside, typename S, typename T>
MMDCN_INLINE void aggregate_impl(const DCNv3Shape& s, const Image<S>& image, int64_t count,
                                 const Block<T>& block, S* out) {
  const int64_t taps = kTaps ? kTaps : s.taps(), size = s.group_channels();
  const Neighbours<kInside, T> neighbours(block, image.stride, s.width);
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i, out += s.channels) {
    for (int64_t g = 0; g < s.groups; ++g, at += taps) {
      for_chunks<kLanes<S>>(
          g * size, (g + 1) * size,
          [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
            aggregate_chunk<vectors, lanes>(taps, image, c, neighbours, at, out);
          });
    }
  }
}

// Clones need plain functions: one set per type.
#define MMDCN_AGGREGATE(S)                                                               \
  MMDCN_CLONES void aggregate(const DCNv3Shape& s, const Image<S>& image, int64_t count, \
                              const Block<Compute<S>>& block, S* out) {                  \
    specialize(s.taps(), block.inside,                                                   \
               [&](auto taps, auto inside) __attribute__((always_inline)) {              \
                 aggregate_impl<taps, inside>(s, image, count, block, out);              \
               });                                                                       \
  }

MMDCN_AGGREGATE(double)
MMDCN_AGGREGATE(float)
MMDCN_AGGREGATE(BFloat16)
MMDCN_AGGREGATE(Half)

}  // namespace

template <typename S>
void dcnv3_forward_cpu(const DCNv3Shape& s, const S* input, const DCNv3Points<const S>& points,
                       bool softmax, S* output) {
  using T = Compute<S>;
  const Grid<T> grid(s);
  const Buffer<S> zeros = make_zeros<S>(s.channels);
  const int64_t per_pixel = s.groups * s.taps(), pixels = s.out_pixels();
  const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / per_pixel);
  const int64_t blocks = ceil_div(pixels, block_pixels);
  torch::stable::parallel_for(0, s.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    Block<T> block(block_pixels * per_pixel);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks, first = item % blocks * block_pixels;
      const int64_t count = std::min(block_pixels, pixels - first);
      const Image<S> image(input + n * s.height * s.width * s.channels, s.channels, zeros.get());
      locate_points<S>(s, grid, points, softmax, image.stride, image.missing, n, first, count, 0,
                       s.groups, {0, s.height}, block);
      prefetch_below(s, image.data, s.channels, first, count);
      aggregate(s, image, count, block, output + (n * pixels + first) * s.channels);
    }
  });
}

#define MMDCN_INSTANTIATE(S)                                                                   \
  template void dcnv3_forward_cpu<S>(const DCNv3Shape&, const S*, const DCNv3Points<const S>&, \
                                     bool, S*);

MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn
