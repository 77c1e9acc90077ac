// The pinned wheels that carry TensorFlow's C library and CUDA's, by variant and processor.

export const TENSORFLOW_VERSION = '2.21.0';

const MB = 1e6;

/** What the addon is compiled against. */
const HEADERS = ['tensorflow/c/', 'tensorflow/core/platform/', 'tensorflow/core/common_runtime/next_pluggable_device/c/', 'tsl/', 'xla/tsl/'].map((folder) => `tensorflow/include/${folder}`);

/**
 * `members`: what is unpacked, files or (with a slash at the end) folders; every one must be there.
 * `libraries`: what the addon is linked to, in this order.
 */
function tensorflow(name, platform, sha256) {
  const libraries = ['tensorflow/libtensorflow_cc.so.2', 'tensorflow/libtensorflow_framework.so.2'];
  return { name, version: TENSORFLOW_VERSION, platform, sha256, members: [...libraries, ...HEADERS], libraries };
}

/**
 * TensorFlow opens CUDA's libraries by their bare names. The addon is linked to them, so they are in memory under those names
 * before TensorFlow asks, wherever the loader would search.
 */
function nvidia(part, version, platform, sha256, libraries) {
  const folder = `nvidia/${part.replaceAll('-', '_')}`;
  return {
    name: `nvidia-${part}-cu12`, version, platform, sha256,
    members: [`${folder}/lib/`],
    libraries: libraries.map((library) => `${folder}/lib/${library}`),
  };
}

/** XLA's assembler and device library; they lie beside TensorFlow as in a Python installation, where it looks for them. */
function nvcc(version, platform, sha256) {
  const members = ['nvidia/cuda_nvcc/bin/ptxas', 'nvidia/cuda_nvcc/nvvm/libdevice/'];
  return { name: 'nvidia-cuda-nvcc-cu12', version, platform, sha256, members, libraries: [] };
}

/** The wheels of one platform, the megabytes to download, and those on disk at the worst moment: a wheel beside what it holds. */
export const ENGINES = {
  'cpu-x64': {
    download: 274 * MB,
    peak: 1300 * MB,
    wheels: [tensorflow('tensorflow-cpu', 'manylinux_2_27_x86_64', '2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c')],
  },
  // The wheel without "cpu" in its name is the CPU build on this processor. Untested; sizes are estimates.
  'cpu-arm64': {
    download: 300 * MB,
    peak: 1500 * MB,
    wheels: [tensorflow('tensorflow', 'manylinux_2_27_aarch64', '4b24aca16d527a3cf1c37f720c04c484c3d20f4d0fdfa98632ac8b9f3be6eb5c')],
  },
  // What pip resolves `tensorflow[and-cuda]==2.21.0` to, pinned. Untested on a GPU; sizes are estimates.
  'cuda-x64': {
    download: 3300 * MB,
    peak: 9000 * MB,
    wheels: [
      nvidia('cuda-runtime', '12.9.79', 'manylinux2014_x86_64', '25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3', ['libcudart.so.12']),
      nvidia('nvjitlink', '12.9.86', 'manylinux2010_x86_64', 'e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9', ['libnvJitLink.so.12']),
      nvidia('cublas', '12.9.3.13', 'manylinux_2_27_x86_64', 'd7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72', ['libcublasLt.so.12', 'libcublas.so.12']),
      nvidia('cuda-cupti', '12.9.79', 'manylinux_2_25_x86_64', '096bcf334f13e1984ba36685ad4c1d6347db214de03dbb6eebb237b41d9d934f', ['libcupti.so.12']),
      nvidia('cuda-nvrtc', '12.9.86', 'manylinux2010_x86_64', '210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4', ['libnvrtc.so.12']),
      nvidia('cufft', '11.4.1.4', 'manylinux2014_x86_64', 'c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28', ['libcufft.so.11']),
      nvidia('curand', '10.3.10.19', 'manylinux_2_27_x86_64', '49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e', ['libcurand.so.10']),
      nvidia('cusparse', '12.5.10.65', 'manylinux2014_x86_64', '73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78', ['libcusparse.so.12']),
      nvidia('cusolver', '11.7.5.82', 'manylinux_2_27_x86_64', '15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88', ['libcusolver.so.11']),
      nvidia('nccl', '2.32.3', 'manylinux_2_27_x86_64', 'bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c', ['libnccl.so.2']),
      nvidia('cudnn', '9.28.0.42', 'manylinux_2_27_x86_64', '9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375', ['libcudnn.so.9']),
      nvcc('12.9.86', 'manylinux2010_x86_64', '5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0'),
      tensorflow('tensorflow', 'manylinux_2_27_x86_64', '9056fbc9ba04235810b71ae6cbd958a196e8804fb53bbcffbf3e23b56155f124'),
    ],
  },
};
