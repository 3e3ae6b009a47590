// As much of OpenMP's runtime as the kernels use, in threads that the thread sanitizer sees: of libgomp's barriers,
// which it does not see, it would report every kernel as a race. The names are those that gcc calls.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace {

struct Loop {
    long next, end, chunk;
};

struct Team {
    int size;
    std::mutex mutex;
    std::condition_variable changed;
    int waiting = 0, barriers = 0;
    std::deque<Loop> loops;  // in the order in which the threads come to them

    void barrier() {
        std::unique_lock lock(mutex);
        const int own = barriers;
        if (++waiting == size) {
            waiting = 0, ++barriers;
            changed.notify_all();
        } else {
            changed.wait(lock, [&] { return barriers != own; });
        }
    }
};

thread_local Team* team = nullptr;
thread_local int number = 0, loops_entered = 0, most_threads = 3;

bool take(long* first, long* last) {
    const std::lock_guard lock(team->mutex);
    Loop& loop = team->loops[size_t(loops_entered - 1)];
    if (loop.next >= loop.end) return false;
    *first = loop.next, *last = std::min(loop.next + loop.chunk, loop.end);
    loop.next = *last;
    return true;
}

void run(void (*function)(void*), void* data, unsigned threads, int entered, const Loop* loop) {
    Team together{int(threads ? threads : unsigned(most_threads))};
    if (loop) together.loops.push_back(*loop);
    const auto work = [&](int own) {
        team = &together, number = own, loops_entered = entered;
        function(data);
        team = nullptr, number = 0;
    };
    std::vector<std::thread> others;
    for (int own = 1; own < together.size; ++own) others.emplace_back(work, own);
    work(0);
    for (std::thread& other : others) other.join();
}

}  // namespace

extern "C" {

int omp_get_num_threads() { return team ? team->size : 1; }
int omp_get_thread_num() { return number; }
int omp_get_max_threads() { return most_threads; }
void omp_set_num_threads(int threads) { most_threads = threads; }
void GOMP_barrier() { team->barrier(); }
void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned) {
    run(function, data, threads, 0, nullptr);
}
void GOMP_parallel_loop_nonmonotonic_dynamic(void (*function)(void*), void* data, unsigned threads, long first,
                                             long last, long step, long chunk, unsigned) {
    const Loop loop{first, last, chunk * step};
    run(function, data, threads, 1, &loop);
}
bool GOMP_loop_nonmonotonic_dynamic_start(long first, long last, long step, long chunk, long* from,
                                          long* to) {
    ++loops_entered;
    {
        const std::lock_guard lock(team->mutex);
        if (team->loops.size() < size_t(loops_entered)) team->loops.push_back({first, last, chunk * step});
    }
    return take(from, to);
}
bool GOMP_loop_nonmonotonic_dynamic_next(long* from, long* to) { return take(from, to); }
void GOMP_loop_end() { team->barrier(); }
void GOMP_loop_end_nowait() {}

}  // extern "C"
