// One build of the persistent kernel, behind functions that need no more than pointers and numbers. Macros give its
// sizes, which `persistent_plan.py` chooses, and the 16-bit format of its weights.
//
// Each returns a cudaError_t, 0 for success. Static, the CUDA runtime in here keeps its errors to itself and shares the
// device's primary context, and with it streams and memory, with the caller's runtime.

#include <cuda_runtime.h>

#include "persistent_hopper.cuh"

using Plan = pru::Sizes<WIDTH, CLUSTER, ROWS, pru::Residence::RESIDENCE>;
using Machine = pru::Hopper<FORMAT>;

extern "C" __global__ void __launch_bounds__(Plan::threads, 1)
    pru_kernel(const __grid_constant__ pru::Arguments arguments) {
    extern __shared__ __align__(16) unsigned char shared[];
    pru::grouped_sequence<Plan, Machine>(arguments, shared);
}

namespace {

// How to launch on one device: a grid one cluster wide.
struct Launch {
    cudaLaunchConfig_t configuration = {};
    cudaLaunchAttribute attribute = {};

    Launch(unsigned groups, unsigned tiles, cudaStream_t stream) {
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim = {Plan::cluster, 1, 1};
        configuration.gridDim = {Plan::cluster, groups, tiles};
        configuration.blockDim = {Plan::threads, 1, 1};
        configuration.dynamicSmemBytes = Plan::shared_bytes;
        configuration.stream = stream;
        configuration.attrs = &attribute;
        configuration.numAttrs = 1;
    }
    Launch(const Launch&) = delete;
    Launch& operator=(const Launch&) = delete;
};

cudaError_t prepare(int device) {
    if (const cudaError_t error = cudaSetDevice(device)) return error;
    const cudaFuncAttribute memory = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (const cudaError_t error = cudaFuncSetAttribute(pru_kernel, memory, Plan::shared_bytes)) return error;
    return cudaFuncSetAttribute(pru_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, Plan::cluster > 8);
}

}  // namespace

extern "C" {

const char* pru_error(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

// How many clusters a device can run at once; 0 where none fits.
int pru_clusters(int device, int* clusters) {
    if (const cudaError_t error = prepare(device)) return error;
    const Launch launch(1, 1, nullptr);
    return cudaOccupancyMaxActiveClusters(clusters, pru_kernel, &launch.configuration);
}

int pru_sequence(const void* pre, const void* context, const void* h, const void* c, const void* lengths, void* outputs,
                 void* h_after, void* c_after, int batch, int steps, int groups, int device, void* stream) {
    if (const cudaError_t error = prepare(device)) return error;
    const Launch launch(groups, (batch + Plan::rows - 1) / Plan::rows, static_cast<cudaStream_t>(stream));
    const pru::Arguments arguments = {static_cast<const float*>(pre),
                                 static_cast<const std::uint16_t*>(context),
                                 static_cast<const float*>(h),
                                 static_cast<const float*>(c),
                                 static_cast<const std::int32_t*>(lengths),
                                 static_cast<float*>(outputs),
                                 static_cast<float*>(h_after),
                                 static_cast<float*>(c_after),
                                 batch,
                                 steps,
                                 groups};
    return cudaLaunchKernelEx(&launch.configuration, pru_kernel, arguments);
}

}  // extern "C"
