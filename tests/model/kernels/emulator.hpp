// A cluster of thread blocks on a CPU, for `persistent.cuh`: every thread of the GPU is a fiber with a stack of its own.
//
// Warps run in an order drawn from a seed, each for a random number of rounds or until it waits, and what is sent to
// another block arrives at any time and in any order. So a result that depends on an order which nothing enforces
// differs from the reference, or between seeds. Memory that nothing wrote holds NaN. Nothing here knows the kernel.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "persistent.cuh"

namespace emulator {

struct Slot {  // what a thread shows its warp
    std::uint32_t kind, of[7];
};

struct Meeting {
    std::uint32_t arrived = 0, phase = 0;
};

struct Warp {
    Meeting meeting;
    Slot slots[2][32];  // by the meeting's phase: a thread may be one meeting ahead of another
};

struct Barrier {  // as it lies in the 8 bytes of a block's shared memory
    std::int32_t bytes;
    std::uint16_t awaited;
    std::uint16_t parity;
};
static_assert(sizeof(Barrier) == 8);

struct Message {
    unsigned char* place;
    std::uint64_t value;
    Barrier* barrier;
};

struct Block {
    std::vector<std::uint64_t> memory;
    std::vector<Warp> warps;
    unsigned char* shared() { return reinterpret_cast<unsigned char*>(memory.data()); }
};

struct Thread {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    int block = 0, index = 0;
    bool done = false;
    std::function<bool()> ready;  // empty while it does not wait
};

class Cluster {
public:
    inline static Cluster* current = nullptr;

    Cluster(int blocks, int threads, int shared_bytes, unsigned seed)
        : random_(seed), shared_bytes_(shared_bytes), blocks_(blocks), threads_(blocks * threads) {
        for (Block& block : blocks_) {
            block.memory.assign((shared_bytes + 7) / 8, ~std::uint64_t(0));
            block.warps.resize(threads / 32);
        }
        for (std::size_t i = 0; i < threads_.size(); ++i) {
            threads_[i].block = static_cast<int>(i) / threads;
            threads_[i].index = static_cast<int>(i) % threads;
        }
    }

    // Run `body` in every thread to its end; throws where a thread does, or where all of them wait.
    void run(const std::function<void()>& body) {
        current = this;
        body_ = body;
        for (Thread& thread : threads_) start(thread);
        std::vector<int> warps(threads_.size() / 32);
        for (std::size_t i = 0; i < warps.size(); ++i) warps[i] = static_cast<int>(i);
        while (!warps.empty()) {
            std::shuffle(warps.begin(), warps.end(), random_);
            bool moved = deliver();
            for (int warp : warps)
                for (int rounds = 1 + static_cast<int>(random_() % 64); rounds > 0 && round(warp); --rounds) moved = true;
            if (!error_.empty()) throw std::runtime_error(error_);
            if (!moved && messages_.empty()) throw std::runtime_error("every thread waits");
            warps.erase(std::remove_if(warps.begin(), warps.end(), [&](int w) { return threads_[w * 32].done; }),
                        warps.end());
        }
        if (!messages_.empty()) throw std::runtime_error("something was sent that no thread waited for");
    }

    Thread& thread() { return *thread_; }
    Block& block() { return blocks_[thread_->block]; }
    Warp& warp() { return block().warps[thread_->index / 32]; }

    void wait_until(std::function<bool()> ready) {
        thread_->ready = std::move(ready);
        Thread* const self = thread_;
        swapcontext(&self->context, &scheduler_);
    }

    void meet(Meeting& meeting, std::uint32_t members) {
        const std::uint32_t phase = meeting.phase;
        if (++meeting.arrived == members) {
            meeting = {0, phase + 1};
        } else {
            wait_until([&meeting, phase] { return meeting.phase != phase; });
        }
    }

    // Show `mine` to the warp and see what all of its threads show; they must all be at the same instruction.
    const Slot* share(const Slot& mine) {
        Slot* const slots = warp().slots[warp().meeting.phase % 2];
        slots[thread_->index % 32] = mine;
        meet(warp().meeting, 32);
        for (int lane = 0; lane < 32; ++lane)
            if (slots[lane].kind != mine.kind) throw std::runtime_error("threads of a warp are at different instructions");
        return slots;
    }

    void meet_all() { meet(meeting_, static_cast<std::uint32_t>(threads_.size())); }

    void send(void* place, std::uint64_t value, void* barrier, int peer) {
        messages_.push_back({translate(place, peer, 8), value, reinterpret_cast<Barrier*>(translate(barrier, peer, 8))});
    }

    static void advance(Barrier& barrier) {
        if (barrier.awaited == 0 && barrier.bytes == 0) barrier = {0, 1, static_cast<std::uint16_t>(!barrier.parity)};
    }

private:
    static constexpr std::size_t stack_bytes = 64 << 10;

    void start(Thread& thread) {
        thread.stack.reset(new unsigned char[stack_bytes]);
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = stack_bytes;
        thread.context.uc_link = &scheduler_;
        makecontext(&thread.context, &Cluster::enter, 0);
    }

    static void enter() {
        Cluster& cluster = *current;
        try {
            cluster.body_();
        } catch (const std::exception& problem) {
            cluster.error_ = problem.what();
        }
        cluster.thread_->done = true;
    }

    // Let every thread of a warp that can go on do so until it waits; false where none could.
    bool round(int warp) {
        bool moved = false;
        for (int lane = 0; lane < 32; ++lane) {
            Thread& thread = threads_[warp * 32 + lane];
            if (thread.done || (thread.ready && !thread.ready())) continue;
            thread.ready = nullptr;
            thread_ = &thread;
            swapcontext(&scheduler_, &thread.context);
            moved = true;
        }
        return moved;
    }

    bool deliver() {
        std::shuffle(messages_.begin(), messages_.end(), random_);
        const std::size_t kept = messages_.empty() ? 0 : random_() % messages_.size();
        for (std::size_t i = kept; i < messages_.size(); ++i) {
            const Message& message = messages_[i];
            std::memcpy(message.place, &message.value, 8);
            message.barrier->bytes -= 8;
            advance(*message.barrier);
        }
        const bool moved = kept < messages_.size();
        messages_.resize(kept);
        return moved;
    }

    unsigned char* translate(void* pointer, int peer, std::ptrdiff_t bytes) {
        const std::ptrdiff_t offset = static_cast<unsigned char*>(pointer) - block().shared();
        if (offset < 0 || offset + bytes > shared_bytes_) throw std::runtime_error("sent beyond the shared memory");
        if (offset % bytes) throw std::runtime_error("sent to a place that is not aligned");
        return blocks_.at(peer).shared() + offset;
    }

    std::mt19937 random_;
    int shared_bytes_;
    std::vector<Block> blocks_;
    std::vector<Thread> threads_;
    std::vector<Message> messages_;
    Meeting meeting_;
    std::function<void()> body_;
    std::string error_;
    ucontext_t scheduler_ = {};
    Thread* thread_ = nullptr;
};

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

// The functions of `persistent_hopper.cuh`, as the PTX manual describes the instructions.
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
