// `persistent.cu` with the emulated machine in place of the GPU: the same functions over arrays of the CPU. The number
// of the device seeds the order of things.

#include <string>

#include "emulated_machine.hpp"

using Plan = pru::Sizes<WIDTH, CLUSTER, ROWS, pru::Residence::RESIDENCE>;
using Machine = emulator::Machine<emulator::FORMAT>;

namespace {
std::string problem;
}

extern "C" {

const char* pru_error(int) { return problem.c_str(); }

int pru_clusters(int, int* clusters) {
    *clusters = 1;
    return 0;
}

// What the layout says, for tests of it.
int pru_threads() { return Plan::threads; }
int pru_columns() { return Plan::columns; }
int pru_shared_bytes() { return Plan::shared_bytes; }
int pru_h_at(int row, int column) { return Plan::h_at(row, column); }
int pru_place(int column) { return Plan::place(column); }
int pru_weight_at(int warp, int place, int row) { return Plan::weight_at(warp, place, row); }

int pru_sequence(const void* pre, const void* context, const void* h, const void* c, const void* lengths, void* outputs,
                 void* h_after, void* c_after, int batch, int steps, int groups, int device, void*) {
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
    try {
        for (int tile = 0; tile * Plan::rows < batch; ++tile)
            for (int group = 0; group < groups; ++group) {
                Machine::group_now = group;
                Machine::tile_now = tile;
                emulator::Cluster cluster(Plan::cluster, Plan::threads, Plan::shared_bytes, device);
                cluster.run([&] {
                    pru::grouped_sequence<Plan, Machine>(arguments, emulator::Cluster::current->block().shared());
                });
            }
    } catch (const std::exception& error) {
        problem = error.what();
        return 1;
    }
    return 0;
}

}  // extern "C"
