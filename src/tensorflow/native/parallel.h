// Work in blocks on a few threads. How work is cut into blocks depends on its size alone, never on the number of threads, so that
// partial sums are added in one order and a result has the same bits on any number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace bignas {

class Pool {
 public:
  // As many threads as TensorFlow's own pool has. Never destroyed: its threads wait until the process ends.
  static Pool& instance() {
    static Pool* pool = [] {
      const char* given = std::getenv("TF_NUM_INTRAOP_THREADS");
      const int threads = given ? std::atoi(given) : 0;
      return new Pool(threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency()));
    }();
    return *pool;
  }

  // Calls body(block) for each block in [0, blocks), and returns when all are done. One call at a time.
  void run(int64_t blocks, const std::function<void(int64_t)>& body) {
    if (threads_ == 1 || blocks == 1) {
      for (int64_t b = 0; b < blocks; b++) body(b);
      return;
    }
    std::lock_guard<std::mutex> one(calls_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      blocks_ = blocks;
      next_.store(0);
      working_ = threads_ - 1;
      round_++;
    }
    wake_.notify_all();
    take();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  explicit Pool(unsigned threads) : threads_(threads) {
    for (unsigned i = 1; i < threads; i++) std::thread([this] { loop(); }).detach();
  }

  void take() {
    for (int64_t b; (b = next_.fetch_add(1)) < blocks_;) (*body_)(b);
  }

  void loop() {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
      }
      take();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--working_ == 0) done_.notify_one();
    }
  }

  const unsigned threads_;
  std::mutex calls_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int64_t> next_{0};
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t blocks_ = 0;
  unsigned working_ = 0;
  uint64_t round_ = 0;
};

// Cuts [0, n) into at most 64 blocks of at least `least` and calls body(block, from, to).
struct Blocks {
  int64_t n, size, count;
  Blocks(int64_t n, int64_t least) : n(n), size(std::max(least, (n + 63) / 64)), count((n + size - 1) / size) {}
  template <class Body>
  void run(const Body& body) const {
    Pool::instance().run(count, [&](int64_t b) { body(b, b * size, std::min(n, (b + 1) * size)); });
  }
};

}  // namespace bignas
