// The recurrence of one layer over all of its steps (Eq. 4 and 6): one cluster of thread blocks for each group and
// tile of rows, whose weights stay on chip from the first step to the last.
//
// Boundary: the order of work. What a machine does for it (matrix instructions, shuffles, barriers, stores into another
// block's memory) is the parameter `Machine`: `persistent_hopper.cuh` on a GPU, an emulation in tests on a CPU. The
// arguments are laid out as in `reference.py`.
//
// Block `rank` of a cluster makes outputs rank * units to rank * units + units - 1 of its group, each of its warps four
// of them: 16 rows of weights (four gates of four outputs) against 8 rows of the batch are one m16n8k16 matrix
// instruction for every 16 columns. Every block holds all of its group's h, twice: it reads one while the next step's
// arrives in the other.
//
// Blocks do not meet between steps. A warp sends its part of h to every block, and a barrier there counts the bytes.
// No h is overwritten while it is read: a warp sends h of step t after h of step t - 1 has arrived whole, hence after
// every warp of the cluster was done with the product that reads h of step t - 2, whose place the new one takes.

#pragma once

#include <cstddef>

#include "persistent_layout.cuh"

#ifdef __CUDACC__
#define PRU_DEVICE __device__ __forceinline__
#define PRU_UNROLL _Pragma("unroll")
#define PRU_UNROLL_16 _Pragma("unroll 16")
#else
#define PRU_DEVICE inline
#define PRU_UNROLL
#define PRU_UNROLL_16
#endif

namespace pru {

// The one output of one row of the batch that a thread keeps, with all of its gates, in each tile.
struct Cell {
    const float* pre;
    float* outputs;
    float h, c;
    int row, length;
    bool inside;    // a row of the batch
    bool received;  // and an output of the layer, not padding
};

template <class Machine>
PRU_DEVICE float sigmoid(float x) {
    return Machine::reciprocal(1.0f + Machine::exponential(-x));
}

template <class Machine>
PRU_DEVICE float hyperbolic_tangent(float x) {
    return 1.0f - 2.0f * Machine::reciprocal(1.0f + Machine::exponential(2.0f * x));
}

// The block's weights into shared memory, zero where a row or a column is padding.
template <class S, class Machine>
PRU_DEVICE void load_weights(const Arguments& x, std::uint16_t* weights) {
    using Piece = Bits<S::piece>;
    constexpr int pieces = S::units / S::piece;
    const std::uint16_t* const group = x.context + std::size_t(Machine::group()) * S::width * 4 * S::width;
    PRU_UNROLL_16
    for (int i = Machine::thread(); i < S::columns * 4 * pieces; i += S::threads) {
        const int unit = i % pieces * S::piece, gate = i / pieces % 4, column = i / pieces / 4;
        const int output = Machine::rank() * S::units + unit;
        Piece piece = 0;
        if (column < S::width && output < S::width)
            piece = *reinterpret_cast<const Piece*>(group + (std::size_t(column) * 4 + gate) * S::width + output);
        const int at = S::weight_at(unit / 4, S::place(column), gate * 4 + unit % 4);
        *reinterpret_cast<Piece*>(weights + at) = piece;
    }
}

// All of the group's h before the first step, into every block.
template <class S, class Machine>
PRU_DEVICE void load_h(const Arguments& x, int first, int rows, std::uint16_t* buffer) {
    for (int i = Machine::thread(); i < rows * S::columns; i += S::threads) {
        const int row = i / S::columns, column = i % S::columns;
        const std::size_t at = (std::size_t(first + row) * x.groups + Machine::group()) * S::width + column;
        buffer[S::h_at(row, column)] = Machine::narrow(column < S::width ? x.h[at] : 0.0f);
    }
}

// The warp's 16 rows of weights by h: its share of the context product (Eq. 4), spread over its threads.
template <class S, class Machine, class Weights>
PRU_DEVICE void product(const Weights& weights, const std::uint16_t* h, int rows, float (&sums)[S::tiles][4]) {
    const int lane = Machine::thread() % 32;
    const Vector* const vectors = reinterpret_cast<const Vector*>(h);
    float parts[S::tiles][2][4] = {};  // two sums at a time: an instruction need not wait for the one before it
    PRU_UNROLL
    for (int chunk = 0; chunk < S::chunks; ++chunk) {
        const Vector left = weights(2 * chunk), right = weights(2 * chunk + 1);
        PRU_UNROLL
        for (int tile = 0; tile < S::tiles; ++tile) {
            Vector b = {};
            if (tile * 8 + lane / 4 < rows) b = vectors[(tile * S::chunks + chunk) * 32 + lane];
            Machine::multiply(parts[tile][0], left.of, b.of[0], b.of[1]);
            Machine::multiply(parts[tile][1], right.of, b.of[2], b.of[3]);
        }
    }
    PRU_UNROLL
    for (int tile = 0; tile < S::tiles; ++tile)
        PRU_UNROLL
        for (int i = 0; i < 4; ++i) sums[tile][i] = parts[tile][0][i] + parts[tile][1][i];
}

// From a thread's four sums (two gates of an output at two rows of the batch) and those of the thread 16 further (the
// other two gates) all four gates of the output at one row, added to `gates` in their order.
template <class Machine>
PRU_DEVICE void gather(const float (&sums)[4], float (&gates)[4]) {
    const bool upper = Machine::thread() % 32 >= 16;
    const float first = Machine::exchange(upper ? sums[0] : sums[1], 16);
    const float second = Machine::exchange(upper ? sums[2] : sums[3], 16);
    gates[0] += upper ? first : sums[0];
    gates[1] += upper ? sums[1] : first;
    gates[2] += upper ? second : sums[2];
    gates[3] += upper ? sums[3] : second;
}

// h of four neighbouring outputs, from as many threads, in the 16-bit format; each of the four threads has all.
template <class Machine>
PRU_DEVICE std::uint64_t pack(float h) {
    const int unit = Machine::thread() / 4 % 4;
    const std::uint32_t one = Machine::narrow(h), neighbour = Machine::exchange(one, 4);
    const std::uint32_t two = unit % 2 ? neighbour | one << 16 : one | neighbour << 16;
    const std::uint32_t others = Machine::exchange(two, 8);
    return unit / 2 ? others | std::uint64_t(two) << 32 : two | std::uint64_t(others) << 32;
}

template <class S, class Machine>
PRU_DEVICE void grouped_sequence(const Arguments& x, unsigned char* shared) {
    std::uint16_t* const buffers = reinterpret_cast<std::uint16_t*>(shared);
    std::uint16_t* const staged = buffers + 2 * S::buffer;
    std::uint64_t* const barriers = reinterpret_cast<std::uint64_t*>(shared + S::barriers_at_bytes);
    const int lane = Machine::thread() % 32, warp = Machine::thread() / 32;
    const int unit = lane / 4 % 4;
    const int column = Machine::rank() * S::units + warp * 4 + unit;
    const std::size_t size = std::size_t(x.groups) * S::width;
    const std::size_t output = std::size_t(Machine::group()) * S::width + column;

    const int first = Machine::tile() * S::rows;
    const int rows = x.batch - first < S::rows ? x.batch - first : S::rows;
    const std::uint32_t arriving = rows * S::columns * sizeof(std::uint16_t);
    if (Machine::thread() == 0)
        for (int i = 0; i < 2; ++i) Machine::start_barrier(barriers + i, arriving);
    load_weights<S, Machine>(x, staged);
    load_h<S, Machine>(x, first, rows, buffers);

    Cell cells[S::tiles];
    PRU_UNROLL
    for (int tile = 0; tile < S::tiles; ++tile) {
        Cell& cell = cells[tile];
        cell.row = tile * 8 + lane % 4 * 2 + lane / 16;
        cell.inside = cell.row < rows;
        cell.received = cell.inside && column < S::width;
        const std::size_t row = first + cell.row;
        cell.pre = x.pre + row * x.steps * 4 * size + output;
        cell.outputs = x.outputs + row * x.steps * size + output;
        cell.h = cell.received ? x.h[row * size + output] : 0.0f;
        cell.c = cell.received ? x.c[row * size + output] : 0.0f;
        cell.length = cell.inside ? x.lengths[row] : 0;
    }
    int steps = 0;  // of the longest row of the tile: the same in every block of the cluster
    for (int row = 0; row < rows; ++row) steps = x.lengths[first + row] > steps ? x.lengths[first + row] : steps;
    steps = steps < x.steps ? steps : x.steps;

    const auto read = [&](int t, float(&into)[S::tiles][4]) {
        PRU_UNROLL
        for (int tile = 0; tile < S::tiles; ++tile)
            PRU_UNROLL
            for (int gate = 0; gate < 4; ++gate)
                if (cells[tile].received)
                    into[tile][gate] = cells[tile].pre[(std::size_t(t) * 4 + gate) * size];
    };
    float gates[S::tiles][4] = {}, ahead[S::tiles][4] = {};
    if (steps > 0) read(0, gates);

    Machine::sync_cluster();
    const std::uint16_t* const own = staged + S::weight_at(warp, lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8);
    Vector kept[S::residence == Residence::registers ? S::products : 1];
    if constexpr (S::residence == Residence::registers) {
        PRU_UNROLL
        for (int i = 0; i < S::products; ++i) kept[i] = Machine::load_matrix(own + i * 256);
    }
    const auto weights = [&](int i) {
        if constexpr (S::residence == Residence::registers)
            return kept[i];
        else
            return Machine::load_matrix(own + i * 256);
    };

    for (int t = 0; t < steps; ++t) {
        if (t + 1 < steps) read(t + 1, ahead);  // before the products, which hide its latency
        if (t > 0) {
            Machine::wait(barriers + t % 2, (t - 1) / 2 % 2);
            if (Machine::thread() == 0) Machine::expect(barriers + t % 2, arriving);
        }
        float sums[S::tiles][4];
        product<S, Machine>(weights, buffers + t % 2 * S::buffer, rows, sums);
        PRU_UNROLL
        for (int tile = 0; tile < S::tiles; ++tile) {
            Cell& cell = cells[tile];
            gather<Machine>(sums[tile], gates[tile]);
            const float c = sigmoid<Machine>(gates[tile][1]) * cell.c +
                            sigmoid<Machine>(gates[tile][0]) * hyperbolic_tangent<Machine>(gates[tile][2]);
            const float h = sigmoid<Machine>(gates[tile][3]) * hyperbolic_tangent<Machine>(c);
            const bool running = t < cell.length;
            cell.c = running ? c : cell.c;
            cell.h = running ? h : cell.h;
            const std::uint64_t four = pack<Machine>(cell.h);
            std::uint16_t* const place =
                buffers + (t + 1) % 2 * S::buffer + S::h_at(cell.row, Machine::rank() * S::units + warp * 4);
            if (t + 1 < steps && cell.inside)
                PRU_UNROLL
                for (int i = 0; i < S::cluster / 4; ++i)
                    Machine::send(place, four, barriers + (t + 1) % 2, unit + 4 * i);
            if (cell.received) cell.outputs[t * size] = running ? h : 0.0f;
            PRU_UNROLL
            for (int gate = 0; gate < 4; ++gate) gates[tile][gate] = ahead[tile][gate];
        }
    }

    PRU_UNROLL
    for (int tile = 0; tile < S::tiles; ++tile)
        if (cells[tile].received) {
            for (int t = steps; t < x.steps; ++t) cells[tile].outputs[t * size] = 0.0f;
            const std::size_t at = std::size_t(first + cells[tile].row) * size + output;
            x.h_after[at] = cells[tile].h;
            x.c_after[at] = cells[tile].c;
        }
    Machine::sync_cluster();  // no block's memory goes while another may still send to it
}

}  // namespace pru
