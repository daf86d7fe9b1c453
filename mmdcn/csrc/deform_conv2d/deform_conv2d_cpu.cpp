// Forward pass of deformable convolution on the CPU.
//
// Output pixels are cut into tiles whose sampled columns stay in a core's cache and are multiplied
// by the weights at once. A channels-first image is made channels last band by band, so that the
// extra memory does not grow with the image.
#include <cmath>

#include "common/cpu/transpose.h"
#include "deform_conv2d/deform_conv2d_tile_cpu.h"

namespace mmdcn::deform_conv2d {
namespace {

constexpr int64_t kBandBytes = 6 << 20;
constexpr int64_t kTileElements = 128 * 1024;  // of columns: half of a second-level cache

// Output rows [first_out, last_out) of images [first_image, last_image), and the input rows that
// are made channels last for them.
struct Job {
  int64_t first_image, last_image;
  int64_t first_out, last_out;
  Band band;

  int64_t images() const { return last_image - first_image; }
};

// The largest finite vertical offset of an image, rounded up.
template <typename S>
int64_t vertical_reach(const Shape& s, const S* offset) {
  Compute<S> reach = 0;
  for (int64_t point = 0; point < s.points(); ++point) {
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
std::vector<Job> plan_jobs(const Shape& s, const PointTensors<S>& points) {
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
    const S* offset_n = points.of_image(s, n).offset;
    const int64_t margin = std::min(vertical_reach(s, offset_n), budget / 4);
    const int64_t out_rows =
        std::max<int64_t>(1, (budget - reach_kernel - 2 * margin) / s.stride_h);
    for (int64_t out = 0; out < s.out_h; out += out_rows) {
      const int64_t last = std::min(out + out_rows, s.out_h);
      const int64_t begin = std::clamp<int64_t>(out * s.stride_h - s.pad_h - margin, 0,
                                                std::max<int64_t>(0, s.height - budget));
      jobs.push_back({n, n + 1, out, last, {begin, std::min(budget, s.height - begin)}});
    }
  }
  return jobs;
}

// Columns and weights are multiplied as E.
template <typename S, typename E>
struct Forward {
  using T = Compute<S>;

  const Shape& s;
  const bool channels_last;  // of input and output
  const S* input;
  const PointTensors<S> points;
  const S *weight, *bias;  // bias may be null
  S* output;

  const GemmKernel<E>& gemm = gemm_kernel<E>();
  const int64_t taps = s.taps(), pixels = s.out_pixels(), depth = s.depth();
  const std::vector<Segment> segments = make_segments(s, s.channels);
  const Panels<E> panels = pack_weight<E>(s, weight);
  const std::vector<Job> jobs = channels_last
                                    ? std::vector<Job>{{0, s.batch, 0, s.out_h, {0, s.height}}}
                                    : plan_jobs(s, points);
  const int64_t tile = tile_pixels(jobs.front());  // the first job is the largest
  const Buffer<S> band = make_buffer<S>(channels_last ? 0 : band_size(jobs.front()));

  void run() const {
    for (const Job& job : jobs) {
      if (!channels_last) load_band(job);
      const int64_t first = job.first_out * s.out_w, last = job.last_out * s.out_w;
      const int64_t tiles = ceil_div(last - first, tile);
      parallel_for(0, job.images() * tiles, 1, [&](int64_t begin, int64_t end) {
        Scratch scratch(s, tile);
        for (int64_t item = begin; item < end; ++item) {
          const int64_t start = first + item % tiles * tile;
          run_tile(job, item / tiles, start, std::min(tile, last - start), scratch);
        }
      });
    }
  }

 private:
  struct Scratch {
    Points<T> points;
    Buffer<E> columns;
    Buffer<T> out;  // [pixel][out channel]

    Scratch(const Shape& s, int64_t tile)
        : points(s, tile),
          columns(make_buffer<E>(tile * s.depth())),
          out(make_buffer<T>(tile * s.out_channels)) {
      // The product reads columns past the last pixel.
      std::fill_n(columns.get(), tile * s.depth(), E(T(0)));
    }
  };

  int64_t tile_pixels(const Job& job) const {
    return std::min(std::clamp(kTileElements / depth / gemm.mr, int64_t{2}, int64_t{16}) * gemm.mr,
                    round_up((job.last_out - job.first_out) * s.out_w, gemm.mr));
  }

  int64_t band_size(const Job& job) const {
    return job.images() * job.band.rows * s.width * s.channels;
  }

  // Makes the rows that a job needs channels last.
  void load_band(const Job& job) const {
    const int64_t band_pixels = job.band.rows * s.width, image = s.channels * s.pixels();
    transpose_batch(input + job.first_image * image + job.band.first_row * s.width, s.pixels(),
                    image, band.get(), s.channels, band_pixels * s.channels, job.images(),
                    s.channels, band_pixels);
  }

  // Output pixels [first, first + count) of an image of a job.
  void run_tile(const Job& job, int64_t image, int64_t first, int64_t count,
                Scratch& scratch) const {
    const int64_t n = job.first_image + image;
    locate_tile(s, points.of_image(s, n), job.band, first, count, scratch.points, 0);
    sample(job, image, count, scratch);
    multiply(count, scratch);
    store(n, first, count, scratch.out.get());
  }

  void sample(const Job& job, int64_t image, int64_t count, Scratch& scratch) const {
    const SampledImage<S> from{
        (channels_last ? input : band.get()) + image * job.band.rows * s.width * s.channels,
        input + (job.first_image + image) * s.channels * s.pixels(), s.channels, s.pixels()};
    for (const Segment& segment : segments) {
      for (int64_t k = 0; k < taps; ++k) {
        sample_tile(from, segment, count,
                    PointsView<T>(scratch.points, segment.deform_group * taps + k, 0),
                    scratch.columns.get() + segment.column + k * s.group_channels(), depth);
      }
    }
  }

  void multiply(int64_t count, Scratch& scratch) const {
    T* const out = scratch.out.get();
    for (int64_t i = 0; bias && i < count; ++i) {
      for (int64_t o = 0; o < s.out_channels; ++o) {
        out[i * s.out_channels + o] = to_compute(bias[o]);
      }
    }
    const int64_t group_depth = s.group_depth(), group_out = s.group_out_channels();
    for (int64_t g = 0; g < s.groups; ++g) {
      gemm_panels(gemm, count, group_out, group_depth, scratch.columns.get() + g * group_depth,
                  depth, panels[g], out + g * group_out, s.out_channels, bias != nullptr);
    }
  }

  void store(int64_t n, int64_t first, int64_t count, const T* out) const {
    S* const image = output + n * s.out_channels * pixels;
    if (channels_last) {
      convert_copy(out, count * s.out_channels, image + first * s.out_channels);
    } else {
      transpose_block(out, s.out_channels, image + first, pixels, count, s.out_channels);
    }
  }
};

Tensor forward(const Tensor& input_any, const Tensor& offset_any, std::optional<Tensor> mask_any,
               const Tensor& weight_any, std::optional<Tensor> bias_any,
               std::vector<int64_t> stride, std::vector<int64_t> padding,
               std::vector<int64_t> dilation, int64_t groups, int64_t deform_groups) {
  const Shape s = make_shape(input_any, offset_any, mask_any, weight_any, bias_any, stride, padding,
                             dilation, groups, deform_groups);
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last ? input_any : contiguous_tensor(input_any);
  const Tensor offset = contiguous_tensor(offset_any);
  const Tensor weight = contiguous_tensor(weight_any);
  const std::optional<Tensor> mask = contiguous_tensor(mask_any),
                              bias = contiguous_tensor(bias_any);
  const Tensor output = empty_image(input, {s.batch, s.out_channels, s.out_h, s.out_w},
                                    input.scalar_type(), channels_last);
  if (s.batch == 0) return output;
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    dispatch_element<S>([&](auto element) {
      Forward<S, decltype(element)>{.s = s,
                                    .channels_last = channels_last,
                                    .input = input.const_data_ptr<S>(),
                                    .points = {offset.const_data_ptr<S>(), data_or_null<S>(mask)},
                                    .weight = weight.const_data_ptr<S>(),
                                    .bias = data_or_null<S>(bias),
                                    .output = output.mutable_data_ptr<S>()}
          .run();
    });
  });
  return output;
}

}  // namespace
}  // namespace mmdcn::deform_conv2d

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_conv2d", TORCH_BOX(&mmdcn::deform_conv2d::forward));
}
