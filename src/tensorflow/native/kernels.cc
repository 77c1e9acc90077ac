// TensorFlow kernels for a training step on a CPU, each in as few passes over memory as it takes. Registered when the addon loads.
// Activations are [n, h, w, c] and contiguous; rows = n · h · w.
#include "math.h"
#include "op.h"
#include "parallel.h"

namespace bignas {
namespace {

constexpr int64_t kFlush = 64;  // rows summed in float before they join a double sum

// Per channel, two sums over all rows: row(r, a, b) adds row r to a and b. The same bits on any number of threads.
template <class Row>
void channelSums(int64_t rows, int64_t c, std::vector<double>& first, std::vector<double>& second, const Row& row) {
  const Blocks blocks(rows, std::max<int64_t>(kFlush, 4096 / c));
  std::vector<double> parts(blocks.count * 2 * c);
  blocks.run([&](int64_t block, int64_t from, int64_t to) {
    std::vector<float> a(c), b(c);
    double* total = parts.data() + block * 2 * c;
    for (int64_t r = from; r < to;) {
      std::fill(a.begin(), a.end(), 0.0f);
      std::fill(b.begin(), b.end(), 0.0f);
      for (const int64_t end = std::min(to, r + kFlush); r < end; r++) row(r, a.data(), b.data());
      for (int64_t i = 0; i < c; i++) total[i] += a[i], total[c + i] += b[i];
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
  channelSums(rows, c, sum, square, [=](int64_t r, float* __restrict a, float* __restrict b) {
    const float* __restrict in = x + r * c;
    for (int64_t i = 0; i < c; i++) {
      const float d = in[i] - x[i];
      a[i] += d;
      b[i] += d * d;
    }
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
  Blocks(rows, std::max<int64_t>(1, 4096 / c)).run([=](int64_t, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
      const float* __restrict in = x + r * c;
      float* __restrict out = y + r * c;
      if (swish) {
#pragma GCC ivdep
        for (int64_t i = 0; i < c; i++) {
          const float z = in[i] * s[i] + t[i];
          out[i] = z * sigmoid(z);
        }
      } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < c; i++) out[i] = in[i] * s[i] + t[i];
      }
    }
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

  // 1. dz, the gradient before the activation, into dx; its sum, and that of dz · x̂.
  std::vector<double> sum, product;
  channelSums(rows, c, sum, product, [=](int64_t r, float* __restrict a, float* __restrict b) {
    const float* __restrict in = x + r * c;
    const float* __restrict g = dy + r * c;
    float* __restrict out = dx + r * c;
    if (swish) {
#pragma GCC ivdep
      for (int64_t i = 0; i < c; i++) {
        const float normal = (in[i] - mean[i]) * inverse[i];
        const float z = gamma[i] * normal + beta[i];
        const float sigma = sigmoid(z);
        const float dz = g[i] * (sigma * (1.0f + z * (1.0f - sigma)));
        out[i] = dz;
        a[i] += dz;
        b[i] += dz * normal;
      }
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < c; i++) {
        out[i] = g[i];
        a[i] += g[i];
        b[i] += g[i] * ((in[i] - mean[i]) * inverse[i]);
      }
    }
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
  const float *s = scale.data(), *k = slope.data(), *t = shift.data();
  Blocks(rows, std::max<int64_t>(1, 4096 / c)).run([=](int64_t, int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
      const float* __restrict in = x + r * c;
      float* __restrict out = dx + r * c;
#pragma GCC ivdep
      for (int64_t i = 0; i < c; i++) out[i] = out[i] * s[i] + (in[i] - mean[i]) * k[i] + t[i];
    }
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
  typedef float Lanes __attribute__((vector_size(L * sizeof(float)), aligned(4)));
  Lanes sums[K * K] = {};
  for (int64_t oy = 0; oy < d.outH; oy++) {
    const int64_t y0 = oy * d.stride - d.top;
    for (int64_t ox = 0; ox < d.outW; ox++) {
      const int64_t x0 = ox * d.stride - d.left;
      const Lanes g = *reinterpret_cast<const Lanes*>(dy + (oy * d.outW + ox) * d.c + channel);
      const float* from = x + (y0 * d.w + x0) * d.c + channel;
      if (y0 >= 0 && x0 >= 0 && y0 + K <= d.h && x0 + K <= d.w) {
#pragma GCC unroll 7
        for (int ky = 0; ky < K; ky++)
#pragma GCC unroll 7
          for (int kx = 0; kx < K; kx++) sums[ky * K + kx] += *reinterpret_cast<const Lanes*>(from + (ky * d.w + kx) * d.c) * g;
      } else {
        for (int ky = 0; ky < K; ky++)
          for (int kx = 0; kx < K; kx++)
            if (y0 + ky >= 0 && y0 + ky < d.h && x0 + kx >= 0 && x0 + kx < d.w)
              sums[ky * K + kx] += *reinterpret_cast<const Lanes*>(from + (ky * d.w + kx) * d.c) * g;
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
