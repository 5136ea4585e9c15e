// What lies where while the recurrence of one group runs in one cluster of thread blocks.
//
// Boundary: compile-time arithmetic alone, the same on a GPU and in tests on a CPU. `persistent.cuh` says how the work
// is cut; `persistent_plan.py` chooses the sizes and knows the same sums.

#pragma once

#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__
#define PRU_BOTH __host__ __device__
#else
#define PRU_BOTH
#endif

namespace pru {

enum class Residence { registers, shared };

// Everything that follows from the width of a group (m), the blocks of a cluster, the rows of the batch that a cluster
// takes (8 or 16), and where the weights stay. Counts elements, except where a name says bytes.
template <int width_, int cluster_, int rows_, Residence residence_>
struct Sizes {
    static constexpr int width = width_, cluster = cluster_, rows = rows_;
    static constexpr Residence residence = residence_;
    static constexpr int warps = (width + 4 * cluster - 1) / (4 * cluster);
    static constexpr int threads = 32 * warps;
    static constexpr int units = 4 * warps;          // outputs that a block makes
    static constexpr int columns = cluster * units;  // width, padded with zeros
    static constexpr int products = columns / 16;    // matrix instructions along a row of weights
    static constexpr int chunks = columns / 32;      // pairs of them, for which a thread reads 16 bytes of h
    static constexpr int tiles = rows / 8;           // matrix instructions across the rows of the batch
    static constexpr int piece = width % 4 == 0 ? 4 : width % 2 == 0 ? 2 : 1;  // weights in one aligned load
    static constexpr int buffer = rows * columns;                              // one h
    static constexpr int warp_weights = 16 * columns + 8;  // the 8 let warps start in different banks
    static constexpr int barriers_at_bytes = 2 * (2 * buffer + warps * warp_weights);
    static constexpr int shared_bytes = barriers_at_bytes + 2 * 8;
    static_assert(width > 0 && (cluster == 8 || cluster == 16) && (rows == 8 || rows == 16));

    // Where h of a row and a column lies: in the order in which a warp's threads read it, 16 bytes each.
    static PRU_BOTH constexpr int h_at(int row, int column) {
        return ((row / 8 * chunks + column / 32) * 32 + row % 8 * 4 + column / 8 % 4) * 8 + column % 8;
    }

    // Where a column stands among those of the matrix instructions. A thread reads 8 neighbouring columns of h and
    // gives 4 to each of two instructions, which take them to be columns 2i, 2i + 1, 2i + 8 and 2i + 9 for the
    // thread's place i among four.
    static PRU_BOTH constexpr int place(int column) {
        return column / 32 * 32 + column / 4 % 2 * 16 + column / 2 % 2 * 8 + column / 8 % 4 * 2 + column % 2;
    }

    // Where the weight at a place and a row of a warp's 16 lies. The row's halves change sides every four places, so
    // that the eight rows of 16 bytes which one matrix load takes lie in different banks.
    static PRU_BOTH constexpr int weight_at(int warp, int place, int row) {
        return warp * warp_weights + place * 16 + (row / 8 ^ place / 4 % 2) * 8 + row % 8;
    }
};

struct Arguments {
    const float* pre;              // [batch, steps, 4, groups * width]
    const std::uint16_t* context;  // [groups, width, 4, width], the bits of a 16-bit float
    const float* h;                // [batch, groups * width]
    const float* c;                // [batch, groups * width]
    const std::int32_t* lengths;   // [batch]
    float* outputs;                // [batch, steps, groups * width]
    float* h_after;                // [batch, groups * width]
    float* c_after;                // [batch, groups * width]
    int batch, steps, groups;
};

// n 16-bit floats as one number.
template <int n>
using Bits = std::conditional_t<n == 4, std::uint64_t, std::conditional_t<n == 2, std::uint32_t, std::uint16_t>>;

struct alignas(16) Vector {
    std::uint32_t of[4];
};

}  // namespace pru
