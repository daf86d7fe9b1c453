// The backward pass on the CPU. Threads own what they add to, so nothing is atomic and the sums do
// not depend on the number of threads.
#include <cmath>

#include "common/aggregation/aggregation_cpu.h"
#include "common/aggregation/backward_loops_cpu.h"
#include "common/cpu/threads.h"

namespace mmdcn::aggregation {
namespace {

// Output rows [first, last) and the input rows that their points may add to.
struct Band {
  int64_t first, last;
  RowRange rows;
};

// The bands of an image: a multiple of four, or a single one. Bands of even numbers have the whole
// input between them, and so have the others; each reaches half its height further than it stands.
std::vector<Band> make_bands(const Shape& s) {
  const int64_t rows = std::min(s.out_h * s.stride_h, s.height);
  // Of 24 rows, so that few points stray; of 12 where there would be fewer than eight bands.
  const int64_t count = std::max(rows / 24, std::min<int64_t>(rows / 12, 8)) / 4 * 4;
  if (count == 0) return {{0, s.out_h, {0, s.height}}};
  const auto middle = [&](int64_t band) {  // the input row where the middle of a band stands
    const int64_t y = (2 * band + 1) * s.out_h / (2 * count);
    return std::clamp<int64_t>(y * s.stride_h + s.dilation_h * (s.kernel_h - 1) / 2 - s.pad_h, 0,
                               s.height);
  };
  std::vector<Band> bands;
  for (int64_t i = 0; i < count; ++i) {
    bands.push_back({i * s.out_h / count,
                     (i + 1) * s.out_h / count,
                     {i < 2 ? 0 : middle(i - 1), i + 2 < count ? middle(i + 1) : s.height}});
  }
  return bands;
}

// grad_weight of the softmax's input from that of its output.
template <typename T>
void softmax_gradient(int64_t taps, const T* weight, T* grad_weight) {
  T mean = 0;
  for (int64_t k = 0; k < taps; ++k) mean += weight[k] * grad_weight[k];
  for (int64_t k = 0; k < taps; ++k) grad_weight[k] = weight[k] * (grad_weight[k] - mean);
}

// Two ways to share out the work:
// - Bands of rows, of all groups. Those of even numbers are done first, then the others, then
//   points that have strayed from their bands.
// - Groups, where bands are few, a pixel takes many cache lines, or points stray. A thread works on
//   copies of the channels of its group.
template <typename S>
struct Backward {
  using T = Compute<S>;

  const Shape& s;
  const Points<const S>& points;
  const S* grad_output;
  const Points<S>& grad_points;

  static constexpr int64_t kBandChannels = 128;
  static constexpr int64_t kStripPixels = 16;

  const Sampler<S> sampler{s, points};
  const int64_t taps = s.taps(), size = s.group_channels();
  const int64_t pixels = s.out_pixels(), in_pixels = s.height * s.width;
  const std::vector<Band> bands = make_bands(s);
  const bool by_bands = suits_bands();
  const int64_t groups = by_bands ? s.groups : 1;  // that are done together
  const int64_t run = std::max<int64_t>(1, kBlockPoints / (groups * taps));  // pixels of a block
  const Buffer<S> zeros = make_zeros<S>(s.channels);

  void operator()(const S* input, S* grad_input) const {
    if (!by_bands) {
      run_groups(input, grad_input);
    } else if constexpr (std::is_same_v<S, T>) {
      run_bands(input, grad_input);
    } else {
      const int64_t count = grad_input ? s.batch * in_pixels : 0;
      const Buffer<T> sums = make_buffer<T>(count * s.channels);
      run_bands(input, grad_input ? sums.get() : nullptr);
      parallel_for(0, count, 256, [&](int64_t begin, int64_t end) {
        copy_channels(end - begin, s.channels, sums.get() + begin * s.channels, s.channels,
                      grad_input + begin * s.channels, s.channels);
      });
    }
  }

 private:
  struct Scratch {
    Block<T> block;
    Buffer<T> dots, grad_offset, grad_weight;

    explicit Scratch(int64_t points)
        : block(points),
          dots(make_buffer<T>(4 * points)),
          grad_offset(make_buffer<T>(2 * points)),
          grad_weight(make_buffer<T>(points)) {}
  };

  // Some groups of an image, from the first channel of the first of them on. `sums` is laid out as
  // the image, and null if not needed.
  struct Part {
    int64_t n, group, groups;
    Image<S> image;
    T* sums;

    PointRange range(int64_t first, int64_t count) const {
      return {n, first, count, group, groups};
    }
  };

  // Pixels side by side whose points have neighbours outside the window.
  struct Stray {
    int64_t first, count;
  };

  // Those of a part, with these rows as their window.
  InputSums<T> sums_in(const Part& part, RowRange rows) const {
    const int64_t row = s.width * part.image.stride;
    return {part.sums, rows.begin * row, (rows.end - rows.begin) * row};
  }

  void run_groups(const S* input, S* grad_input) const {
    parallel_for(0, s.batch * s.groups, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(run * taps);
      const Buffer<S> image = make_buffer<S>(in_pixels * size);
      const Buffer<T> sums = make_buffer<T>(grad_input ? in_pixels * size : 0);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t n = item / s.groups, group = item % s.groups;
        const int64_t at = n * in_pixels * s.channels + group * size;
        copy_channels(in_pixels, size, input + at, s.channels, image.get(), size);
        if (grad_input) std::fill_n(sums.get(), in_pixels * size, T(0));
        run_band({n, group, 1, {image.get(), size, zeros.get()}, grad_input ? sums.get() : nullptr},
                 {0, s.out_h, {0, s.height}}, scratch);
        if (grad_input) {
          copy_channels(in_pixels, size, sums.get(), size, grad_input + at, s.channels);
        }
      }
    });
  }

  void run_bands(const S* input, T* sums) const {
    const int64_t count = static_cast<int64_t>(bands.size()), half = count / 2;
    const auto part = [&](int64_t n, int64_t group, int64_t groups) {
      const int64_t at = n * in_pixels * s.channels + group * size;
      return Part{
          n, group, groups, {input + at, s.channels, zeros.get()}, sums ? sums + at : nullptr};
    };
    std::vector<std::vector<Stray>> strays(s.batch * count);
    for (int64_t odd = 0; odd < 2; ++odd) {
      parallel_for(0, s.batch * half, 1, [&](int64_t begin, int64_t end) {
        Scratch scratch(run * s.groups * taps);
        for (int64_t item = begin; item < end; ++item) {
          const int64_t n = item / half, index = 2 * (item % half) + odd;
          const Part p = part(n, 0, s.groups);
          const Band& band = bands[index];
          if (sums && !odd) {
            const InputSums<T> own = sums_in(p, band.rows);
            std::fill_n(own.data + own.begin, own.size, T(0));
          }
          strays[n * count + index] = run_band(p, band, scratch);
        }
      });
    }
    if (!sums) return;
    parallel_for(0, s.batch * s.groups, 1, [&](int64_t begin, int64_t end) {
      Block<T> block(run * taps);
      for (int64_t item = begin; item < end; ++item) {
        const Part p = part(item / s.groups, item % s.groups, 1);
        for (int64_t i = 0; i < count; ++i) {
          for (const Stray& stray : strays[p.n * count + i]) {
            const PointRange range = p.range(stray.first, stray.count);
            locate_points(sampler, range, p.image, bands[i].rows, block);
            if (block.inside) continue;  // it was another group
            add_strays(s, range, grad_of(range), p.image, block, sums_in(p, bands[i].rows));
          }
        }
      }
    });
  }

  // Among others, nine points of ten of a sample must be less than half a band from where the
  // middle of the kernel stands.
  bool suits_bands() const {
    constexpr int64_t kStep = 61;
    if (bands.size() == 1 || s.channels > kBandChannels) return false;
    const T middle = static_cast<T>(s.dilation_h * (s.kernel_h - 1) / 2 - s.pad_h);
    const T reach = static_cast<T>(s.height) / static_cast<T>(2 * bands.size());
    int64_t all = 0, close = 0;
    for (int64_t pixel = 0; pixel < s.batch * pixels; pixel += kStep) {
      for (int64_t g = 0; g < s.groups; ++g) {
        const S* offset = points.offset + pixel * points.offset_pixel + g * points.offset_group;
        for (int64_t k = 0; k < taps; ++k) {
          const T y =
              sampler.grid.y[k] - middle + to_compute(offset[2 * k + 1]) * sampler.grid.scale;
          close += std::abs(y) < reach;
        }
      }
      all += s.groups * taps;
    }
    return 10 * close >= 9 * all;
  }

  // Walks down the band in strips, so that what their rows touch stays in a first-level cache.
  std::vector<Stray> run_band(const Part& part, const Band& band, Scratch& scratch) const {
    std::vector<Stray> strays;
    for (int64_t left = 0; left < s.out_w; left += kStripPixels) {
      const int64_t right = std::min(left + kStripPixels, s.out_w);
      for (int64_t y = band.first; y < band.last; ++y) {
        for (int64_t x = left; x < right; x += run) {
          const int64_t first = y * s.out_w + x, count = std::min(run, right - x);
          if (run_block(part, band, part.range(first, count), scratch)) {
            strays.push_back({first, count});
          }
        }
      }
    }
    return strays;
  }

  const S* grad_of(const PointRange& range) const {
    return grad_output + (range.n * pixels + range.first) * s.channels + range.group * size;
  }

  // Returns whether points have strayed.
  bool run_block(const Part& part, const Band& band, const PointRange& range,
                 Scratch& scratch) const {
    const int64_t width = range.groups * size;
    Block<T>& block = scratch.block;
    locate_points(sampler, range, part.image, band.rows, block);
    prefetch_below(s, part.image.data, width, range);
    if (part.sums) prefetch_below(s, part.sums, width, range);
    const bool strayed = backward_points(s, range, grad_of(range), part.image, block,
                                         sums_in(part, band.rows), scratch.dots.get());
    point_gradients(range.count * range.groups * taps, sampler.grid.scale, scratch.dots.get(),
                    block, scratch.grad_offset.get(), scratch.grad_weight.get());
    store_gradients(range, scratch);
    return strayed;
  }

  void store_gradients(const PointRange& range, Scratch& scratch) const {
    const Points<S>& to = grad_points;
    T *grad_offset = scratch.grad_offset.get(), *grad_weight = scratch.grad_weight.get();
    const T* weight = scratch.block.field(kTapWeight);
    for (int64_t i = 0; i < range.count; ++i) {
      const int64_t pixel = range.n * pixels + range.first + i;
      for (int64_t g = range.group; g < range.group + range.groups; ++g) {
        if (s.softmax) softmax_gradient(taps, weight, grad_weight);
        convert_copy(grad_offset, 2 * taps,
                     to.offset + pixel * to.offset_pixel + g * to.offset_group);
        convert_copy(grad_weight, taps, to.weight + pixel * to.weight_pixel + g * to.weight_group);
        grad_offset += 2 * taps, grad_weight += taps, weight += taps;
      }
    }
  }
};

}  // namespace

template <typename S>
Tensor Cpu::backward(const Shape& s, const Tensor& grad_output, const Tensor& input,
                     const Points<const S>& points, const Points<S>& grad_points, bool need_input,
                     bool /*deterministic*/) const {
  const Tensor grad_input =
      empty_tensor(input, need_input ? shape_of(input) : std::vector<int64_t>{0});
  Backward<S>{s, points, grad_output.const_data_ptr<S>(), grad_points}(
      input.const_data_ptr<S>(), need_input ? grad_input.mutable_data_ptr<S>() : nullptr);
  return grad_input;
}

#define MMDCN_INSTANTIATE(S)                                                   \
  template Tensor Cpu::backward<S>(const Shape&, const Tensor&, const Tensor&, \
                                   const Points<const S>&, const Points<S>&, bool, bool) const;
MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn::aggregation
