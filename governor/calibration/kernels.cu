// Kernels of known work for `governor calibrate`, compiled at run time by pycuda.
#include <cuda_fp16.h>
#if __CUDA_ARCH__ >= 700 || !defined(__CUDA_ARCH__)
#include <mma.h>
#endif

// Eight independent chains a thread: enough to hide the latency of a multiply-add.
// FLOP a thread: 16 * rounds.
extern "C" __global__ void fma_fp32(float *out, int rounds) {
  float a[8];
  for (int i = 0; i < 8; ++i) a[i] = threadIdx.x + i;
  for (int r = 0; r < rounds; ++r)
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i] = fmaf(a[i], 0.999f, 0.5f);
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += a[i];
  if (sum == -1.0f) out[0] = sum;  // never: but the compiler cannot know
}

// Two halves an instruction. FLOP a thread: 32 * rounds.
extern "C" __global__ void fma_fp16(float *out, int rounds) {
#if __CUDA_ARCH__ >= 530
  __half2 a[8];
  const __half2 m = __float2half2_rn(0.99f), c = __float2half2_rn(0.5f);
  for (int i = 0; i < 8; ++i) a[i] = __float2half2_rn(threadIdx.x % 8 + i);
  for (int r = 0; r < rounds; ++r)
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i] = __hfma2(a[i], m, c);
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += __low2float(a[i]) + __high2float(a[i]);
  if (sum == -1.0f) out[0] = sum;
#endif
}

// 16 x 16 x 16 products on tensor cores, four accumulators a warp. FLOP a warp: 32768 * rounds.
extern "C" __global__ void tensor_fp16(float *out, int rounds) {
#if __CUDA_ARCH__ >= 700
  using namespace nvcuda;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> a;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> b;
  wmma::fragment<wmma::accumulator, 16, 16, 16, __half> c[4];
  wmma::fill_fragment(a, __float2half(0.001f));
  wmma::fill_fragment(b, __float2half(0.001f));
  for (int i = 0; i < 4; ++i) wmma::fill_fragment(c[i], __float2half(float(i)));
  for (int r = 0; r < rounds; ++r)
#pragma unroll
    for (int i = 0; i < 4; ++i) wmma::mma_sync(c[i], a, b, c[i]);
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += __half2float(c[i].x[0]);
  if (sum == -1.0f) out[0] = sum;
#endif
}

// One pass over `count` vectors of 16 bytes; `rounds` multiply-adds on each of their four floats.
// FLOP a vector: 8 * rounds, and 4 for the sum.
extern "C" __global__ void read_mix(const float4 *in, float *out, long long count, int rounds) {
  const long long step = (long long)gridDim.x * blockDim.x;
  float sum = 0;
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += step) {
    float4 v = in[i];
    for (int r = 0; r < rounds; ++r) {
      v.x = fmaf(v.x, 0.999f, 0.5f);
      v.y = fmaf(v.y, 0.999f, 0.5f);
      v.z = fmaf(v.z, 0.999f, 0.5f);
      v.w = fmaf(v.w, 0.999f, 0.5f);
    }
    sum += v.x + v.y + v.z + v.w;
  }
  if (sum == -1.0f) out[0] = sum;
}

extern "C" __global__ void write_all(float4 *to, long long count) {
  const long long step = (long long)gridDim.x * blockDim.x;
  const float4 v = make_float4(1, 2, 3, 4);
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += step)
    to[i] = v;
}
