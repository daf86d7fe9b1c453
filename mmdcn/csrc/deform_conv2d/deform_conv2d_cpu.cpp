// Forward pass of deformable convolution on the CPU.
//
// Output pixels are cut into tiles whose sampled columns stay in a core's cache and are multiplied
// by the weights at once. A channels-first image is made channels last band by band, so that the
// extra memory does not grow with the image.
#include <cmath>

#include "common/cpu/transpose.h"
#include "deform_conv2d/deform_conv2d_tile_cpu.h"

namespace mmdcn {
namespace {

constexpr int64_t kBandBytes = 6 << 20;
constexpr int64_t kTileElements = 128 * 1024;  // of columns: half of a second-level cache

// Output rows [first_out, last_out) of images [first_image, last_image), and the input rows that
// are made channels last for them.
struct Job {
  int64_t first_image, last_image;
  int64_t first_out, last_out;
  Band band;
};

// The largest finite vertical offset of an image, rounded up.
template <typename S>
int64_t vertical_reach(const DeformConvShape& s, const S* offset) {
  Compute<S> reach = 0;
  for (int64_t point = 0; point < s.deform_groups * s.taps(); ++point) {
    const S* dy = offset + 2 * point * s.out_pixels();
    for (int64_t i = 0; i < s.out_pixels(); ++i) {
      const Compute<S> size = std::abs(to_compute(dy[i]));
      reach = size > reach && size < s.height ? size : reach;
    }
  }
  return static_cast<int64_t>(std::ceil(reach));
}

// Cuts the work so that the rows at hand fit kBandBytes: several small images, or part of one.
// A point that strays further than its band reads the channels-first image, slowly.
template <typename S>
std::vector<Job> plan_jobs(const DeformConvShape& s, const S* offset) {
  const int64_t row_bytes = s.width * s.channels * sizeof(S);
  const int64_t budget = std::max<int64_t>(1, kBandBytes / row_bytes);  // in rows
  std::vector<Job> jobs;
  if (s.height <= budget) {
    const int64_t images = std::max<int64_t>(1, budget / s.height);
    for (int64_t n = 0; n < s.batch; n += images) {
      jobs.push_back({n, std::min(n + images, s.batch), 0, s.out_h, {0, s.height}});
    }
    return jobs;
  }
  const int64_t reach_kernel = s.dilation_h * (s.kernel_h - 1) + 2;
  for (int64_t n = 0; n < s.batch; ++n) {
    const S* offset_n = offset + n * s.deform_groups * 2 * s.taps() * s.out_pixels();
    const int64_t margin = std::min(vertical_reach(s, offset_n), budget / 4);
    const int64_t rows = std::max<int64_t>(1, (budget - reach_kernel - 2 * margin) / s.stride_h);
    for (int64_t out = 0; out < s.out_h; out += rows) {
      const int64_t last = std::min(out + rows, s.out_h);
      const int64_t begin = std::clamp<int64_t>(out * s.stride_h - s.pad_h - margin, 0,
                                                std::max<int64_t>(0, s.height - budget));
      jobs.push_back({n, n + 1, out, last, {begin, std::min(budget, s.height - begin)}});
    }
  }
  return jobs;
}

// Columns and weights are multiplied as E.
template <typename S, typename E>
Tensor forward(const DeformConvShape& s, const Tensor& input_any, const Tensor& offset_any,
               const std::optional<Tensor>& mask_any, const Tensor& weight_any,
               const std::optional<Tensor>& bias_any) {
  using T = Compute<S>;
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last ? input_any : torch::stable::contiguous(input_any);
  const Tensor offset = torch::stable::contiguous(offset_any);
  const Tensor weight = torch::stable::contiguous(weight_any);
  const std::optional<Tensor> mask = contiguous(mask_any), bias = contiguous(bias_any);
  Tensor output =
      empty_image({s.batch, s.out_channels, s.out_h, s.out_w}, input.scalar_type(), channels_last);
  if (s.batch == 0) return output;

  const S* input_ptr = input.const_data_ptr<S>();
  const S* offset_ptr = offset.const_data_ptr<S>();
  const S* mask_ptr = data_or_null<S>(mask);
  const S* bias_ptr = data_or_null<S>(bias);
  S* output_ptr = output.mutable_data_ptr<S>();

  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), pixels = s.out_pixels(), image_pixels = s.height * s.width;
  const int64_t group_in = s.group_channels(), group_out = s.group_out_channels();
  const int64_t depth = taps * group_in, columns = s.groups * depth;
  const int64_t points_per_pixel = s.deform_groups * taps;
  const std::vector<Segment> segments = make_segments(s, s.channels);

  const Panels<E> panels = pack_weight<E>(s, weight.const_data_ptr<S>());
  const std::vector<Job> jobs = channels_last
                                    ? std::vector<Job>{{0, s.batch, 0, s.out_h, {0, s.height}}}
                                    : plan_jobs<S>(s, offset_ptr);
  const Job& largest = jobs.front();
  const Buffer<S> rows =
      make_buffer<S>(channels_last ? 0
                                   : (largest.last_image - largest.first_image) *
                                         largest.band.rows * s.width * s.channels);
  const int64_t tile =
      std::min(std::clamp(kTileElements / columns / gemm.mr, int64_t{2}, int64_t{16}) * gemm.mr,
               round_up((largest.last_out - largest.first_out) * s.out_w, gemm.mr));

  for (const Job& job : jobs) {
    const int64_t images = job.last_image - job.first_image;
    const int64_t band_pixels = job.band.rows * s.width;
    if (!channels_last) {
      transpose_batch(
          input_ptr + job.first_image * s.channels * image_pixels + job.band.first_row * s.width,
          image_pixels, s.channels * image_pixels, rows.get(), s.channels, band_pixels * s.channels,
          images, s.channels, band_pixels);
    }
    const S* rows_ptr = channels_last ? input_ptr : rows.get();
    const int64_t job_first = job.first_out * s.out_w, job_last = job.last_out * s.out_w;
    const int64_t tiles = ceil_div(job_last - job_first, tile);

    torch::stable::parallel_for(0, images * tiles, 1, [&](int64_t begin, int64_t end) {
      const Buffer<E> col = make_buffer<E>(tile * columns);
      const Buffer<T> out = make_buffer<T>(tile * s.out_channels);
      Points<T> points(points_per_pixel * tile);
      std::fill_n(col.get(), tile * columns, E(T(0)));  // rows past the last pixel are read
      for (int64_t item = begin; item < end; ++item) {
        const int64_t n = job.first_image + item / tiles;
        const int64_t first = job_first + item % tiles * tile;
        const int64_t count = std::min(tile, job_last - first);
        locate_tile(s, offset_ptr + n * 2 * points_per_pixel * pixels,
                    mask_ptr ? mask_ptr + n * points_per_pixel * pixels : nullptr, job.band, first,
                    count, points, 0, tile);
        const SampledImage<S> image{rows_ptr + item / tiles * band_pixels * s.channels,
                                    input_ptr + n * s.channels * image_pixels, s.channels,
                                    image_pixels};
        for (const Segment& segment : segments) {
          for (int64_t k = 0; k < taps; ++k) {
            sample_tile(image, segment, count,
                        PointsView<T>(points, (segment.deform_group * taps + k) * tile),
                        col.get() + segment.column + k * group_in, columns);
          }
        }
        for (int64_t i = 0; bias_ptr && i < count; ++i) {
          for (int64_t o = 0; o < s.out_channels; ++o) {
            out[i * s.out_channels + o] = to_compute(bias_ptr[o]);
          }
        }
        for (int64_t g = 0; g < s.groups; ++g) {
          gemm_panels(gemm, count, group_out, depth, col.get() + g * depth, columns, panels[g],
                      out.get() + g * group_out, s.out_channels, bias_ptr != nullptr);
        }
        S* image_out = output_ptr + n * s.out_channels * pixels;
        if (channels_last) {
          S* dst = image_out + first * s.out_channels;
          for (int64_t i = 0; i < count * s.out_channels; ++i) dst[i] = convert<S>(out[i]);
        } else {
          transpose_block(out.get(), s.out_channels, image_out + first, pixels, count,
                          s.out_channels);
        }
      }
    });
  }
  return output;
}

Tensor deform_conv2d_cpu(const Tensor& input, const Tensor& offset, std::optional<Tensor> mask,
                         const Tensor& weight, std::optional<Tensor> bias,
                         std::vector<int64_t> stride, std::vector<int64_t> padding,
                         std::vector<int64_t> dilation, int64_t groups, int64_t deform_groups) {
  const DeformConvShape s = deform_conv_shape(input, offset, mask, weight, bias, stride, padding,
                                              dilation, groups, deform_groups);
  return dispatch_floating(input.scalar_type(), [&](auto type) {
    using S = decltype(type);
    return dispatch_element<S>([&](auto element) {
      return forward<S, decltype(element)>(s, input, offset, mask, weight, bias);
    });
  });
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_conv2d", TORCH_BOX(&mmdcn::deform_conv2d_cpu));
}
