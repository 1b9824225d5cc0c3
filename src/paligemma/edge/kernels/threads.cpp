// A pool of threads that stays: they spin for a moment after their work, for the next call is near, and then sleep.
//
// A call opens some seats, works itself, and closes the seats that nobody took when nothing is left to start. So a thread that wakes late
// is never waited for. One call at a time; others wait. A forked child begins with a pool of its own.
//
// Linux may wake a thread on the very core of its caller, and needs ten or more milliseconds to notice that another is free: as long as
// many an answer takes. So the threads are kept off the core that the caller is on. They are bound to no core, and follow it when it moves.

#include "kernels.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#ifndef _WIN32
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace {

constexpr int MAX_THREADS = 64;
constexpr auto SPIN = std::chrono::microseconds(60);

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct Pool {
    std::mutex call, sleep;
    std::condition_variable wake;
    std::atomic<int> sleeping{0};
    std::atomic<uint32_t> state{0};  // free seats << 8 | threads at work besides the caller
    std::atomic<int64_t> next{0};
    int64_t tasks = 0;
    Task run = nullptr;
    void* context = nullptr;
    int workers = 0;
#ifdef __linux__
    pthread_t handles[MAX_THREADS];
    int caller_core = -1;

    void leave_the_core_of_the_caller() {
        const int core = sched_getcpu();
        if (core == caller_core) return;
        caller_core = core;
        cpu_set_t cores;
        if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof cores, &cores)) return;
        CPU_CLR(core, &cores);
        if (!CPU_COUNT(&cores)) return;
        for (int i = 0; i < workers; i++) pthread_setaffinity_np(handles[i], sizeof cores, &cores);
    }
#else
    void leave_the_core_of_the_caller() {}
#endif

    void drain(int seat) {
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) run(context, task, seat);
    }

    void wait_for_seats() {
        const auto end = std::chrono::steady_clock::now() + SPIN;
        while (std::chrono::steady_clock::now() < end) {
            for (int i = 0; i < 16; i++) {
                if (state.load() >> 8) return;
                pause();
            }
        }
        std::unique_lock<std::mutex> lock(sleep);
        sleeping++;  // before it looks at `state` again, as a call sets `state` before it looks here: one of the two sees the other
        wake.wait(lock, [this] { return state.load() >> 8; });
        sleeping--;
    }

    void work() {
        for (;;) {
            wait_for_seats();
            uint32_t now = state.load();
            if (!(now >> 8) || !state.compare_exchange_strong(now, now - 256 + 1)) continue;
            drain(static_cast<int>(now >> 8));
            state.fetch_sub(1);
        }
    }

    void grow(int wanted) {
        try {
            for (; workers < wanted; workers++) {
                std::thread made(&Pool::work, this);
#ifdef __linux__
                handles[workers] = made.native_handle();
                caller_core = -1;
#endif
                made.detach();
            }
        } catch (const std::system_error&) {
            // The system gives no more threads. Those there are do all the work, with the same results.
        }
    }

    void go(int64_t count, int threads, Task task, void* with) {
        std::lock_guard<std::mutex> one(call);
        grow(threads - 1);
        leave_the_core_of_the_caller();
        tasks = count, run = task, context = with;
        next.store(0);
        state.store(static_cast<uint32_t>(threads - 1) << 8);
        if (sleeping.load()) {
            { std::lock_guard<std::mutex> lock(sleep); }
            wake.notify_all();
        }
        drain(0);
        state.fetch_and(255);
        for (int spins = 0; state.load() & 255; spins++) {
            if (spins < 4096) pause();
            else std::this_thread::yield();
        }
    }
};

std::atomic<Pool*> pool{nullptr};  // never destroyed: its threads may outlive everything else
std::once_flag made;

void make() {
    pool = new Pool;
#ifndef _WIN32
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });  // the parent's threads do not exist in the child
#endif
}

struct Scratch {
    char* memory = nullptr;
    size_t size = 0;
    ~Scratch() { release(); }
    void release() {
        ::operator delete(memory, std::align_val_t(64), std::nothrow);
        memory = nullptr, size = 0;
    }
};

thread_local Scratch mine[2];  // by use

}  // namespace

void parallel(int64_t tasks, int threads, Task run, void* context) {
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads > tasks) threads = static_cast<int>(tasks);
    if (threads <= 1) {
        for (int64_t task = 0; task < tasks; task++) run(context, task, 0);
        return;
    }
    std::call_once(made, make);
    pool.load()->go(tasks, threads, run, context);
}

char* scratch(size_t bytes, Use use) {
    Scratch& own = mine[use];
    if (bytes > own.size) {
        own.release();
        own.memory = static_cast<char*>(::operator new(bytes, std::align_val_t(64), std::nothrow));
        own.size = own.memory ? bytes : 0;
    }
    return own.memory;
}
