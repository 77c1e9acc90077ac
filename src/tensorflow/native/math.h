// Arithmetic on a few channels at once. No reduction runs across lanes, so bits do not depend on the vector width. NaN goes in and
// comes out: a diverged network must be seen.
#pragma once

#include <cstdint>
#include <type_traits>

namespace bignas {

template <int L>
struct Vector {
  typedef float Floats __attribute__((vector_size(L * sizeof(float)), aligned(4)));
  typedef int32_t Ints __attribute__((vector_size(L * sizeof(int32_t)), aligned(4)));
};
// L adjacent floats, wherever they lie.
template <int L>
using Floats = typename Vector<L>::Floats;

template <int L>
inline Floats<L> load(const float* from) {
  return *reinterpret_cast<const Floats<L>*>(from);
}
template <int L>
inline void store(float* to, Floats<L> values) {
  *reinterpret_cast<Floats<L>*>(to) = values;
}

// e^x to about 2 ulp (Cephes' polynomial), clamped where float ends.
template <int L>
inline Floats<L> exponential(Floats<L> x) {
  x = x < -87.0f ? Floats<L>{} - 87.0f : x;
  x = x > 88.0f ? Floats<L>{} + 88.0f : x;
  // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the lowest bits.
  const Floats<L> shifted = x * 1.44269504088896341f + 12582912.0f;
  const Floats<L> n = shifted - 12582912.0f;
  const Floats<L> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats<L> p = Floats<L>{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  typedef typename Vector<L>::Ints Ints;
  return p * reinterpret_cast<Floats<L>>((reinterpret_cast<Ints>(shifted) + 127) << 23);
}

template <int L>
inline Floats<L> sigmoid(Floats<L> x) {
  return 1.0f / (1.0f + exponential<L>(-x));
}

// Calls body(channel, lanes) for the channels [0, c), in groups that fill vector registers and the rest one by one.
template <class Body>
inline void channelGroups(int64_t c, const Body& body) {
  int64_t channel = 0;
  for (; channel + 16 <= c; channel += 16) body(channel, std::integral_constant<int, 16>());
  for (; channel + 8 <= c; channel += 8) body(channel, std::integral_constant<int, 8>());
  for (; channel < c; channel++) body(channel, std::integral_constant<int, 1>());
}

}  // namespace bignas
