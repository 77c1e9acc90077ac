// TensorFlow kernels for a training step on a CPU, each in as few passes over memory as it takes. Registered when the addon loads.
// Activations are [n, h, w, c] and contiguous; rows = n · h · w.
#include <cmath>

#include "math.h"
#include "op.h"
#include "parallel.h"

namespace bignas {
namespace {

constexpr int64_t kRows = 64;  // taken group of channels by group, while they lie in a near cache; summed in float before they join a double

// Every row, some rows at a time: at(channel, lanes) gives what is done to a row of a group of channels. What it knows of the channels
// stays in registers from row to row.
template <class At>
void channelPass(int64_t rows, int64_t c, const At& at) {
  Blocks(rows, std::max<int64_t>(1, 4096 / c)).run([&](int64_t, int64_t from, int64_t to) {
    for (int64_t begin = from; begin < to; begin += kRows) {
      const int64_t end = std::min(to, begin + kRows);
      channelGroups(c, [&](int64_t channel, auto lanes) {
        const auto row = at(channel, lanes);
        for (int64_t r = begin; r < end; r++) row(r);
      });
    }
  });
}

// The same with two sums per channel: what at gives is called with (r, a, b), and adds row r to a and b. The same bits on any number of threads.
template <class At>
void channelSums(int64_t rows, int64_t c, std::vector<double>& first, std::vector<double>& second, const At& at) {
  const Blocks blocks(rows, std::max<int64_t>(kRows, 4096 / c));
  std::vector<double> parts(blocks.count * 2 * c);
  blocks.run([&](int64_t block, int64_t from, int64_t to) {
    double* total = parts.data() + block * 2 * c;
    for (int64_t begin = from; begin < to; begin += kRows) {
      const int64_t end = std::min(to, begin + kRows);
      channelGroups(c, [&](int64_t channel, auto lanes) {
        constexpr int L = decltype(lanes)::value;
        const auto row = at(channel, lanes);
        Floats<L> a = {}, b = {};
        for (int64_t r = begin; r < end; r++) row(r, a, b);
        for (int i = 0; i < L; i++) total[channel + i] += a[i], total[c + channel + i] += b[i];
      });
    }
  });
  first.assign(c, 0.0);
  second.assign(c, 0.0);
  for (int64_t block = 0; block < blocks.count; block++)
    for (int64_t i = 0; i < c; i++) first[i] += parts[block * 2 * c + i], second[i] += parts[block * 2 * c + c + i];
}

void* noAttributes(TF_OpKernelConstruction*) { return new Attributes; }

void* batchNormAttributes(TF_OpKernelConstruction* construction) {
  auto* attributes = new Attributes;
  TF_Status* status = TF_NewStatus();
  TF_Bool swish = 0;
  TF_OpKernelConstruction_GetAttrFloat(construction, "epsilon", &attributes->epsilon, status);
  TF_OpKernelConstruction_GetAttrBool(construction, "swish", &swish, status);
  attributes->swish = swish != 0;
  if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(construction, status);
  TF_DeleteStatus(status);
  return attributes;
}

// y = f(γ · (x − mean) · inverse + β), f the identity or swish; mean and inverse = 1/√(variance + ε) over all rows.
void batchNorm(void* state, TF_OpKernelContext* context) {
  const Attributes& attributes = *static_cast<Attributes*>(state);
  Call call(context);
  TF_Tensor *xt = call.input(0), *gt = call.input(1), *bt = call.input(2);
  if (!call.ok()) return;
  const std::vector<int64_t> shape = shapeOf(xt);
  const int64_t c = shape.back(), n = TF_TensorElementCount(xt), rows = n / c;
  if (!call.require(TF_TensorElementCount(gt) == c && TF_TensorElementCount(bt) == c, "gamma and beta must have x's channels")) return;
  const float *x = call.data(xt), *gamma = call.data(gt), *beta = call.data(bt);
  float *y = call.output(0, shape), *mean = call.output(1, {c}), *inverse = call.output(2, {c});
  if (!call.ok()) return;

  // Sums of x − x₀ and of its square, x₀ the first row: no cancellation where the mean is far from 0.
  std::vector<double> sum, square;
  channelSums(rows, c, sum, square, [=](int64_t channel, auto lanes) {
    constexpr int L = decltype(lanes)::value;
    const Floats<L> origin = load<L>(x + channel);
    return [=](int64_t r, Floats<L>& a, Floats<L>& b) {
      const Floats<L> d = load<L>(x + r * c + channel) - origin;
      a += d;
      b += d * d;
    };
  });
  std::vector<float> scale(c), shift(c);
  for (int64_t i = 0; i < c; i++) {
    const double m = sum[i] / rows;
    const double variance = square[i] / rows - m * m;
    mean[i] = static_cast<float>(x[i] + m);
    inverse[i] = static_cast<float>(1.0 / std::sqrt((variance < 0 ? 0 : variance) + attributes.epsilon));
    scale[i] = gamma[i] * inverse[i];
    shift[i] = beta[i] - mean[i] * scale[i];
  }
  const float *s = scale.data(), *t = shift.data();
  const bool swish = attributes.swish;
  channelPass(rows, c, [=](int64_t channel, auto lanes) {
    constexpr int L = decltype(lanes)::value;
    const Floats<L> slope = load<L>(s + channel), offset = load<L>(t + channel);
    return [=](int64_t r) {
      const Floats<L> z = load<L>(x + r * c + channel) * slope + offset;
      store<L>(y + r * c + channel, swish ? z * sigmoid<L>(z) : z);
    };
  });
}

void batchNormGrad(void* state, TF_OpKernelContext* context) {
  const bool swish = static_cast<Attributes*>(state)->swish;
  Call call(context);
  TF_Tensor *dyt = call.input(0), *xt = call.input(1), *gt = call.input(2), *bt = call.input(3), *mt = call.input(4), *it = call.input(5);
  if (!call.ok()) return;
  const std::vector<int64_t> shape = shapeOf(xt);
  const int64_t c = shape.back(), n = TF_TensorElementCount(xt), rows = n / c;
  if (!call.require(TF_TensorElementCount(dyt) == n, "dy must have x's shape")) return;
  const float *dy = call.data(dyt), *x = call.data(xt), *gamma = call.data(gt), *beta = call.data(bt), *mean = call.data(mt), *inverse = call.data(it);
  float *dx = call.output(0, shape), *dgamma = call.output(1, {c}), *dbeta = call.output(2, {c});
  if (!call.ok()) return;

  // 1. dz, the gradient before the activation, into dx where it is not dy; its sum, and that of dz · x̂.
  std::vector<double> sum, product;
  channelSums(rows, c, sum, product, [=](int64_t channel, auto lanes) {
    constexpr int L = decltype(lanes)::value;
    const Floats<L> m = load<L>(mean + channel), v = load<L>(inverse + channel), slope = load<L>(gamma + channel), offset = load<L>(beta + channel);
    return [=](int64_t r, Floats<L>& a, Floats<L>& b) {
      const Floats<L> normal = (load<L>(x + r * c + channel) - m) * v;
      Floats<L> dz = load<L>(dy + r * c + channel);
      if (swish) {
        const Floats<L> z = slope * normal + offset;
        const Floats<L> sigma = sigmoid<L>(z);
        dz *= sigma * (1.0f + z * (1.0f - sigma));
        store<L>(dx + r * c + channel, dz);
      }
      a += dz;
      b += dz * normal;
    };
  });
  // 2. dx = γ · inverse · (dz − mean(dz) − x̂ · mean(dz · x̂)), as one multiply-add each of dz and x.
  std::vector<float> scale(c), slope(c), shift(c);
  for (int64_t i = 0; i < c; i++) {
    dgamma[i] = static_cast<float>(product[i]);
    dbeta[i] = static_cast<float>(sum[i]);
    scale[i] = gamma[i] * inverse[i];
    slope[i] = -scale[i] * inverse[i] * static_cast<float>(product[i] / rows);
    shift[i] = -scale[i] * static_cast<float>(sum[i] / rows);
  }
  const float *s = scale.data(), *k = slope.data(), *t = shift.data(), *from = swish ? dx : dy;
  channelPass(rows, c, [=](int64_t channel, auto lanes) {
    constexpr int L = decltype(lanes)::value;
    const Floats<L> m = load<L>(mean + channel), ofDz = load<L>(s + channel), ofX = load<L>(k + channel), offset = load<L>(t + channel);
    return [=](int64_t r) {
      const int64_t at = r * c + channel;
      store<L>(dx + at, load<L>(from + at) * ofDz + (load<L>(x + at) - m) * ofX + offset);
    };
  });
}

// [n, c]: the sum over height and width of a · b.
void sumProduct(void*, TF_OpKernelContext* context) {
  Call call(context);
  TF_Tensor *at = call.input(0), *bt = call.input(1);
  if (!call.ok()) return;
  const std::vector<int64_t> shape = shapeOf(at);
  if (!call.require(shape.size() == 4 && TF_TensorElementCount(at) == TF_TensorElementCount(bt), "a and b must be [n, h, w, c], alike")) return;
  const int64_t n = shape[0], area = shape[1] * shape[2], c = shape[3];
  const float *a = call.data(at), *b = call.data(bt);
  float* out = call.output(0, {n, c});
  if (!call.ok()) return;
  Blocks(n, 1).run([=](int64_t, int64_t from, int64_t to) {
    for (int64_t image = from; image < to; image++) {
      float* __restrict sum = out + image * c;
      std::fill(sum, sum + c, 0.0f);
      for (int64_t p = 0; p < area; p++) {
        const float* __restrict u = a + (image * area + p) * c;
        const float* __restrict v = b + (image * area + p) * c;
        for (int64_t i = 0; i < c; i++) sum[i] += u[i] * v[i];
      }
    }
  });
}

// y = x · scale + shift, scale and shift [n, c] the same over height and width.
void scaleShift(void*, TF_OpKernelContext* context) {
  Call call(context);
  TF_Tensor *xt = call.input(0), *st = call.input(1), *tt = call.input(2);
  if (!call.ok()) return;
  const std::vector<int64_t> shape = shapeOf(xt);
  if (!call.require(shape.size() == 4, "x must be [n, h, w, c]")) return;
  const int64_t n = shape[0], area = shape[1] * shape[2], c = shape[3];
  if (!call.require(TF_TensorElementCount(st) == n * c && TF_TensorElementCount(tt) == n * c, "scale and shift must be [n, c]")) return;
  const float *x = call.data(xt), *scale = call.data(st), *shift = call.data(tt);
  float* y = call.output(0, shape);
  if (!call.ok()) return;
  Blocks(n, 1).run([=](int64_t, int64_t from, int64_t to) {
    for (int64_t image = from; image < to; image++) {
      const float* __restrict s = scale + image * c;
      const float* __restrict t = shift + image * c;
      for (int64_t p = 0; p < area; p++) {
        const float* __restrict in = x + (image * area + p) * c;
        float* __restrict out = y + (image * area + p) * c;
        for (int64_t i = 0; i < c; i++) out[i] = in[i] * s[i] + t[i];
      }
    }
  });
}

void* depthwiseAttributes(TF_OpKernelConstruction* construction) {
  auto* attributes = new Attributes;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrInt32(construction, "kernel", &attributes->kernel, status);
  TF_OpKernelConstruction_GetAttrInt32(construction, "stride", &attributes->stride, status);
  if (TF_GetCode(status) != TF_OK) TF_OpKernelConstruction_Failure(construction, status);
  TF_DeleteStatus(status);
  return attributes;
}

struct Depthwise {
  int64_t h, w, c, outH, outW, stride, top, left;
};

// One image's sum over output pixels of x · dy for L channels from `channel`: K² accumulators that stay in registers.
template <int K, int L>
void filterGradient(const Depthwise& d, const float* x, const float* dy, int64_t channel, float* total) {
  Floats<L> sums[K * K] = {};
  for (int64_t oy = 0; oy < d.outH; oy++) {
    const int64_t y0 = oy * d.stride - d.top;
    for (int64_t ox = 0; ox < d.outW; ox++) {
      const int64_t x0 = ox * d.stride - d.left;
      const Floats<L> g = load<L>(dy + (oy * d.outW + ox) * d.c + channel);
      const float* from = x + (y0 * d.w + x0) * d.c + channel;
      if (y0 >= 0 && x0 >= 0 && y0 + K <= d.h && x0 + K <= d.w) {
#pragma GCC unroll 7
        for (int ky = 0; ky < K; ky++)
#pragma GCC unroll 7
          for (int kx = 0; kx < K; kx++) sums[ky * K + kx] += load<L>(from + (ky * d.w + kx) * d.c) * g;
      } else {
        for (int ky = 0; ky < K; ky++)
          for (int kx = 0; kx < K; kx++)
            if (y0 + ky >= 0 && y0 + ky < d.h && x0 + kx >= 0 && x0 + kx < d.w)
              sums[ky * K + kx] += load<L>(from + (ky * d.w + kx) * d.c) * g;
      }
    }
  }
  for (int k = 0; k < K * K; k++)
    for (int i = 0; i < L; i++) total[k * d.c + channel + i] += sums[k][i];
}

template <int K>
void depthwiseFilterGradient(const Depthwise& d, int64_t n, const float* x, const float* dy, float* out) {
  const Blocks blocks(n, 1);
  const int64_t size = K * K * d.c;
  std::vector<float> parts(blocks.count * size);
  blocks.run([&](int64_t block, int64_t from, int64_t to) {
    float* total = parts.data() + block * size;
    for (int64_t image = from; image < to; image++) {
      const float* xi = x + image * d.h * d.w * d.c;
      const float* gi = dy + image * d.outH * d.outW * d.c;
      int64_t channel = 0;
      for (; channel + 16 <= d.c; channel += 16) filterGradient<K, 16>(d, xi, gi, channel, total);
      for (; channel + 4 <= d.c; channel += 4) filterGradient<K, 4>(d, xi, gi, channel, total);
      for (; channel < d.c; channel++) filterGradient<K, 1>(d, xi, gi, channel, total);
    }
  });
  std::vector<double> sums(size);
  for (int64_t block = 0; block < blocks.count; block++)
    for (int64_t i = 0; i < size; i++) sums[i] += parts[block * size + i];
  for (int64_t i = 0; i < size; i++) out[i] = static_cast<float>(sums[i]);
}

// [k, k, c, 1]: the gradient of a depthwise convolution's filter, padding SAME.
void depthwiseFilterGrad(void* state, TF_OpKernelContext* context) {
  const Attributes& attributes = *static_cast<Attributes*>(state);
  Call call(context);
  TF_Tensor *xt = call.input(0), *dyt = call.input(1);
  if (!call.ok()) return;
  const std::vector<int64_t> in = shapeOf(xt), dy = shapeOf(dyt);
  const int64_t k = attributes.kernel, s = attributes.stride;
  if (!call.require(in.size() == 4 && dy.size() == 4 && in[0] == dy[0] && in[3] == dy[3], "x and dy must be [n, h, w, c]")) return;
  if (!call.require(dy[1] == (in[1] + s - 1) / s && dy[2] == (in[2] + s - 1) / s, "dy must have the size of a SAME convolution")) return;
  const auto before = [=](int64_t size, int64_t out) { return std::max<int64_t>((out - 1) * s + k - size, 0) / 2; };
  const Depthwise d{in[1], in[2], in[3], dy[1], dy[2], s, before(in[1], dy[1]), before(in[2], dy[2])};
  float* out = call.output(0, {k, k, d.c, 1});
  if (!call.ok()) return;
  if (k == 3) return depthwiseFilterGradient<3>(d, in[0], call.data(xt), call.data(dyt), out);
  if (k == 5) return depthwiseFilterGradient<5>(d, in[0], call.data(xt), call.data(dyt), out);
  if (k == 7) return depthwiseFilterGradient<7>(d, in[0], call.data(xt), call.data(dyt), out);
  call.require(false, "the kernel must be 3, 5 or 7");
}

const bool registered = [] {
  registerOp({"BignasBatchNorm", {"x: float", "gamma: float", "beta: float"}, {"y: float", "mean: float", "inverse: float"}, {"epsilon: float", "swish: bool"}, batchNormAttributes, batchNorm});
  registerOp({"BignasBatchNormGrad", {"dy: float", "x: float", "gamma: float", "beta: float", "mean: float", "inverse: float"}, {"dx: float", "dgamma: float", "dbeta: float"}, {"epsilon: float", "swish: bool"}, batchNormAttributes, batchNormGrad});
  registerOp({"BignasSumProduct", {"a: float", "b: float"}, {"y: float"}, {}, noAttributes, sumProduct});
  registerOp({"BignasScaleShift", {"x: float", "scale: float", "shift: float"}, {"y: float"}, {}, noAttributes, scaleShift});
  registerOp({"BignasDepthwiseFilterGrad", {"x: float", "dy: float"}, {"dw: float"}, {"kernel: int", "stride: int"}, depthwiseAttributes, depthwiseFilterGrad});
  return true;
}();

}  // namespace
}  // namespace bignas
