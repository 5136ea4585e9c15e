// What a Hopper GPU (compute capability 9.0) does for `persistent.cuh`: one function an instruction.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "persistent.cuh"

namespace pru {

template <class Format>  // __nv_bfloat16 or __half
struct Hopper {
    static constexpr bool bfloat16 = std::is_same_v<Format, __nv_bfloat16>;
    static_assert(bfloat16 || std::is_same_v<Format, __half>);

    static PRU_DEVICE int thread() { return threadIdx.x; }
    static PRU_DEVICE int rank() { return blockIdx.x; }  // the grid is one cluster wide
    static PRU_DEVICE int group() { return blockIdx.y; }
    static PRU_DEVICE int tile() { return blockIdx.z; }

    static PRU_DEVICE std::uint16_t narrow(float x) {
        if constexpr (bfloat16)
            return __bfloat16_as_ushort(__float2bfloat16_rn(x));
        else
            return __half_as_ushort(__float2half_rn(x));
    }
    static PRU_DEVICE float exponential(float x) { return __expf(x); }
    static PRU_DEVICE float reciprocal(float x) {
        float result;
        asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
        return result;
    }

    template <class T>
    static PRU_DEVICE T exchange(T x, int distance) {
        return __shfl_xor_sync(0xffffffffu, x, distance);
    }

    // Four 8 x 8 matrices, transposed: each thread of the warp gives the address of one row of 16 bytes.
    static PRU_DEVICE Vector load_matrix(const std::uint16_t* row) {
        Vector a;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a.of[0]), "=r"(a.of[1]), "=r"(a.of[2]), "=r"(a.of[3])
                     : "r"(address(row))
                     : "memory");
        return a;
    }

    // sums += a b for a of 16 x 16, b of 16 x 8.
    static PRU_DEVICE void multiply(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
        if constexpr (bfloat16)
            asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
        else
            asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }

    static PRU_DEVICE void sync_cluster() {
        __syncwarp();  // both instructions are the whole warp's
        asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    }

    // A barrier of one arrival, made known to the cluster, in its first phase.
    static PRU_DEVICE void start_barrier(std::uint64_t* barrier, std::uint32_t bytes) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address(barrier)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        expect(barrier, bytes);
    }
    // The arrival: the phase ends when these bytes have come. They may come before it.
    static PRU_DEVICE void expect(std::uint64_t* barrier, std::uint32_t bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(barrier)), "r"(bytes)
                     : "memory");
    }
    static PRU_DEVICE void wait(std::uint64_t* barrier, std::uint32_t parity) {
        std::uint32_t done;
        do {
            asm volatile(
                "{\n"
                ".reg .pred done;\n"
                "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%1], %2;\n"
                "selp.u32 %0, 1, 0, done;\n"
                "}"
                : "=r"(done)
                : "r"(address(barrier)), "r"(parity)
                : "memory");
        } while (!done);
        __syncwarp();  // what follows is the whole warp's
    }
    // Store into the same place of a peer's memory and count the bytes at its barrier, without waiting for either.
    static PRU_DEVICE void send(std::uint16_t* place, std::uint64_t value, std::uint64_t* barrier, int peer) {
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(
                         remote(address(place), peer)),
                     "l"(value), "r"(remote(address(barrier), peer))
                     : "memory");
    }

private:
    static PRU_DEVICE std::uint32_t address(const void* pointer) {
        return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
    }
    static PRU_DEVICE std::uint32_t remote(std::uint32_t address, int peer) {
        std::uint32_t result;
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(address), "r"(peer));
        return result;
    }
};

}  // namespace pru
