// The forward pass on the CPU. Threads own pixels.
#include "common/aggregation/aggregation_cpu.h"
#include "common/aggregation/points_cpu.h"
#include "common/cpu/threads.h"

namespace mmdcn::aggregation {
namespace {

// One (pixel, group): kVectors vectors of N channels from `channel` on.
template <int kVectors, int N, bool kInside, typename S, typename T>
MMDCN_INLINE void aggregate_chunk(int64_t taps, const Image<S>& image, int64_t channel,
                                  Neighbours<kInside, T> neighbours, int64_t point, S* out) {
  Vec<T, N> sum[4][kVectors] = {};  // a chain of additions per corner
  for (int64_t k = 0; k < taps; ++k) {
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const S* from = image.at(neighbours.place(point + k, corner) + channel);
      const T w = neighbours.weight(point + k, corner);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[corner][v] += w * load<N>(from + v * N);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    store<N>(out + channel + v * N, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
  }
}

template <int kBytes, int kTaps, bool kInside, typename S, typename T>
MMDCN_INLINE void aggregate_impl(const Shape& s, const Image<S>& image, int64_t count,
                                 const Block<T>& block, S* out) {
  const int64_t taps = kTaps ? kTaps : s.taps(), size = s.group_channels();
  const Neighbours<kInside, T> neighbours(block, image.stride, s.width);
  int64_t at = 0;
  for (int64_t i = 0; i < count; ++i, out += s.channels) {
    for (int64_t g = 0; g < s.groups; ++g, at += taps) {
      for_chunks<kLanes<S, kBytes>>(
          g * size, (g + 1) * size,
          [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
            aggregate_chunk<vectors, lanes>(taps, image, c, neighbours, at, out);
          });
    }
  }
}

// Clones need plain functions: one set per type.
#define MMDCN_AGGREGATE(S)                                                              \
  MMDCN_CLONES void aggregate(const Shape& s, const Image<S>& image, int64_t count,     \
                              const Block<Compute<S>>& block, S* out) {                 \
    specialize(s.taps(), block.inside,                                                  \
               [&](auto taps, auto inside) __attribute__((always_inline)) {             \
                 aggregate_impl<kWideBytes, taps, inside>(s, image, count, block, out); \
               });                                                                      \
  }
MMDCN_AGGREGATE(double)
MMDCN_AGGREGATE(float)
MMDCN_AGGREGATE(BFloat16)
MMDCN_AGGREGATE(Half)

}  // namespace

template <typename S>
void Cpu::forward(const Shape& s, const Tensor& input, const Points<const S>& points,
                  const Tensor& output) const {
  const S* const input_ptr = input.const_data_ptr<S>();
  S* const output_ptr = output.mutable_data_ptr<S>();
  const Sampler<S> sampler{s, points};
  const Buffer<S> zeros = make_zeros<S>(s.channels);
  const int64_t per_pixel = s.groups * s.taps(), pixels = s.out_pixels();
  const int64_t block_pixels = std::max<int64_t>(1, kBlockPoints / per_pixel);
  const int64_t blocks = ceil_div(pixels, block_pixels);
  parallel_for(0, s.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    Block<Compute<S>> block(block_pixels * per_pixel);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / blocks, first = item % blocks * block_pixels;
      const PointRange range{n, first, std::min(block_pixels, pixels - first), 0, s.groups};
      const Image<S> image(input_ptr + n * s.height * s.width * s.channels, s.channels,
                           zeros.get());
      locate_points(sampler, range, image, {0, s.height}, block);
      prefetch_below(s, image.data, s.channels, range);
      aggregate(s, image, range.count, block, output_ptr + (n * pixels + first) * s.channels);
    }
  });
}

#define MMDCN_INSTANTIATE(S)                                                         \
  template void Cpu::forward<S>(const Shape&, const Tensor&, const Points<const S>&, \
                                const Tensor&) const;
MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn::aggregation
