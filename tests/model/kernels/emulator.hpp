// A cluster of thread blocks on a CPU: every thread of the GPU is a fiber with a stack of its own.
//
// Warps run in an order drawn from a seed, each for a random number of rounds or until it waits, and what is sent to
// another block arrives at any time and in any order. So a result that depends on an order which nothing enforces
// differs from the reference, or between seeds. Memory that nothing wrote holds NaN. Nothing here knows the kernel.

#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

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
                for (std::uint32_t left = 1 + random_() % 64; left > 0 && round(warp); --left) moved = true;
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
            if (slots[lane].kind != mine.kind) throw std::runtime_error("a warp is at different instructions");
        return slots;
    }

    void meet_all() { meet(meeting_, static_cast<std::uint32_t>(threads_.size())); }

    void send(void* place, std::uint64_t value, void* barrier, int peer) {
        Barrier* const there = reinterpret_cast<Barrier*>(translate(barrier, peer, 8));
        messages_.push_back({translate(place, peer, 8), value, there});
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

}  // namespace emulator
