#include "deform_conv2d/deform_conv2d_tile_cpu.h"
#include "common/cpu/transpose.h"

namespace mmdcn::deform_conv2d {

std::vector<Segment> make_segments(const Shape& s, int64_t max_size) {
  const int64_t per_group = s.group_channels(), per_deform = s.channels / s.deform_groups;
  std::vector<Segment> segments;
  for (int64_t c = 0; c < s.channels;) {
    const int64_t group = c / per_group, deform_group = c / per_deform;
    const int64_t end =
        std::min({(group + 1) * per_group, (deform_group + 1) * per_deform, c + max_size});
    const int64_t in_group = c - group * per_group;
    segments.push_back(
        {c, end - c, group, deform_group, in_group, group * s.taps() * per_group + in_group});
    c = end;
  }
  return segments;
}

template <typename E, typename S>
Panels<E> pack_weight(const Shape& s, const S* weight) {
  using T = Compute<S>;
  constexpr int64_t kChannels = 16;
  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), channels = s.group_channels(), outs = s.group_out_channels();
  Panels<E> panels(gemm, s.groups, s.group_depth(), outs);
  const int64_t count = ceil_div(outs, gemm.nr);
  parallel_items(s.groups * count, [&](int64_t item) {
    const int64_t g = item / count, first = item % count * gemm.nr;
    const int64_t panel_outs = std::min(gemm.nr, outs - first);
    const S* from = weight + (g * outs + first) * channels * taps;
    const Buffer<T> block = make_zeros<T>(kChannels * taps * gemm.nr);  // [channel][tap][out]
    for (int64_t c0 = 0; c0 < channels; c0 += kChannels) {
      const int64_t size = std::min(kChannels, channels - c0);
      transpose_block(from + c0 * taps, channels * taps, block.get(), gemm.nr, panel_outs,
                      size * taps);
      for (int64_t j = 0; j < size * taps; ++j) {
        panels.put(g, j % taps * channels + c0 + j / taps, first, block.get() + j * gemm.nr);
      }
    }
  });
  return panels;
}

template <typename E, typename S>
Panels<E> pack_weight_transposed(const Shape& s, const S* weight) {
  using T = Compute<S>;
  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), channels = s.group_channels(), outs = s.group_out_channels();
  const int64_t depth = s.group_depth(), steps = ceil_div(outs, kDepthStep<E>);
  Panels<E> panels(gemm, s.groups, outs, depth);
  parallel_for(0, s.groups * steps, 1, [&](int64_t begin, int64_t end) {
    const Buffer<T> step = make_zeros<T>(round_up(depth, gemm.nr));  // [tap][channel]
    for (int64_t item = begin; item < end; ++item) {
      const int64_t g = item / steps, first = item % steps * kDepthStep<E>;
      for (int64_t o = first; o < std::min(first + kDepthStep<E>, outs); ++o) {
        transpose_block(weight + (g * outs + o) * depth, taps, step.get(), channels, channels,
                        taps);
        for (int64_t k = 0; k < depth; k += gemm.nr) panels.put(g, o, k, step.get() + k);
      }
    }
  });
  return panels;
}

#define MMDCN_INSTANTIATE(S, E)                                 \
  template Panels<E> pack_weight<E, S>(const Shape&, const S*); \
  template Panels<E> pack_weight_transposed<E, S>(const Shape&, const S*);
MMDCN_INSTANTIATE(double, double)
MMDCN_INSTANTIATE(float, float)
MMDCN_INSTANTIATE(BFloat16, float)
MMDCN_INSTANTIATE(BFloat16, BFloat16)
MMDCN_INSTANTIATE(Half, float)

}  // namespace mmdcn::deform_conv2d
