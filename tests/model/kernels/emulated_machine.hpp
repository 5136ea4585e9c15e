// What `persistent_hopper.cuh` asks of a GPU, asked of the emulated cluster: instructions as the PTX manual has them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "emulator.hpp"
#include "persistent.cuh"

namespace emulator {

struct Bfloat16 {
    static float widen(std::uint16_t bits) {
        const std::uint32_t wide = std::uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        return value;
    }
    static std::uint16_t narrow(float value) {  // to nearest, ties to even; no NaN is expected
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
};

struct Float16 {
    static float widen(std::uint16_t bits) {
        _Float16 value;
        std::memcpy(&value, &bits, 2);
        return static_cast<float>(value);
    }
    static std::uint16_t narrow(float value) {
        const _Float16 half = static_cast<_Float16>(value);
        std::uint16_t bits;
        std::memcpy(&bits, &half, 2);
        return bits;
    }
};

template <class Format>
struct Machine {
    inline static int group_now = 0, tile_now = 0;

    static int thread() { return Cluster::current->thread().index; }
    static int rank() { return Cluster::current->thread().block; }
    static int group() { return group_now; }
    static int tile() { return tile_now; }

    static std::uint16_t narrow(float x) { return Format::narrow(x); }
    static float exponential(float x) { return std::exp(x); }
    static float reciprocal(float x) { return 1.0f / x; }

    template <class T>
    static T exchange(T x, int distance) {
        static_assert(sizeof(T) == 4);
        Slot slot = {1, {}};
        std::memcpy(slot.of, &x, 4);
        T other;
        std::memcpy(&other, Cluster::current->share(slot)[thread() % 32 ^ distance].of, 4);
        return other;
    }

    static pru::Vector load_matrix(const std::uint16_t* row) {
        if (reinterpret_cast<std::uintptr_t>(row) % 16) throw std::runtime_error("a matrix row is not aligned");
        Slot slot = {2, {}};
        std::memcpy(slot.of, &row, sizeof row);
        const Slot* const slots = Cluster::current->share(slot);
        const int lane = thread() % 32;
        pru::Vector a;
        for (int matrix = 0; matrix < 4; ++matrix) {
            std::uint16_t pair[2];
            for (int i = 0; i < 2; ++i) {
                const std::uint16_t* from;
                std::memcpy(&from, slots[matrix * 8 + lane % 4 * 2 + i].of, sizeof from);
                pair[i] = from[lane / 4];
            }
            a.of[matrix] = pair[0] | std::uint32_t(pair[1]) << 16;
        }
        return a;
    }

    static void multiply(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
        const Slot* const slots = Cluster::current->share({3, {a[0], a[1], a[2], a[3], b0, b1}});
        const int lane = thread() % 32;
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            for (int k = 0; k < 16; ++k) {
                const std::uint32_t left = slots[row % 8 * 4 + k / 2 % 4].of[row / 8 + k / 8 * 2];
                const std::uint32_t right = slots[column * 4 + k / 2 % 4].of[4 + k / 8];
                sums[i] += half(left, k % 2) * half(right, k % 2);
            }
        }
    }

    static void sync_cluster() { Cluster::current->meet_all(); }

    static void start_barrier(std::uint64_t* barrier, std::uint32_t bytes) {
        at(barrier) = {0, 1, 0};
        expect(barrier, bytes);
    }
    static void expect(std::uint64_t* barrier, std::uint32_t bytes) {
        at(barrier).bytes += static_cast<std::int32_t>(bytes);
        at(barrier).awaited -= 1;
        Cluster::advance(at(barrier));
    }
    static void wait(std::uint64_t* barrier, std::uint32_t parity) {
        Cluster::current->wait_until([=] { return at(barrier).parity != parity; });
    }
    static void send(std::uint16_t* place, std::uint64_t value, std::uint64_t* barrier, int peer) {
        Cluster::current->send(place, value, barrier, peer);
    }

private:
    static Barrier& at(std::uint64_t* barrier) { return *reinterpret_cast<Barrier*>(barrier); }
    static float half(std::uint32_t pair, int which) {
        return Format::widen(static_cast<std::uint16_t>(which ? pair >> 16 : pair));
    }
};

}  // namespace emulator
