// SPDX-License-Identifier: BSD-2-Clause
// A real C++ program: std::thread, futures, exceptions thrown through frames, containers and
// streams.
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

struct odd : std::runtime_error {
	uint64_t value;
	explicit odd(uint64_t v) : std::runtime_error("odd " + std::to_string(v)), value(v) {}
};

static uint64_t step(uint64_t x, int depth)
{
	auto guard = std::make_unique<std::string>(40, 'x');

	if (depth)
		return step(x * 6364136223846793005u + 1442695040888963407u, depth - 1) +
		       guard->size();
	if (x >> 33 & 1)
		throw odd(x);
	return x;
}

static uint64_t task(unsigned seed, unsigned rounds)
{
	std::map<uint64_t, std::string> seen;
	uint64_t x = seed;

	for (unsigned i = 0; i < rounds; i++) {
		try {
			x = step(x, 8);
		} catch (const odd &o) {
			x = o.value ^ std::string(o.what()).size();
		}
		seen[x % 1000] = std::to_string(x);
	}
	for (const auto &[k, v] : seen)
		x += k * v.size();
	return x;
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? std::stoul(argv[1]) : 100;
	std::vector<uint64_t> results(8);
	std::mutex lock;
	std::condition_variable done;
	unsigned left;

	for (unsigned r = 0; r < rounds; r++) {
		std::vector<std::thread> threads;
		left = results.size();
		for (unsigned i = 0; i < results.size(); i++)
			threads.emplace_back([&, i] {
				auto f = std::async(std::launch::async, task, r * 100 + i, 700u);
				results[i] += f.get();
				std::lock_guard<std::mutex> hold(lock);
				left--;
				done.notify_one();
			});
		{
			std::unique_lock<std::mutex> hold(lock);
			done.wait(hold, [&] { return left == 0; });
		}
		for (auto &t : threads)
			t.join();
		if (r % 50 == 0)
			std::cout << r << ' ' << std::hex << results[r % 8] << std::dec
				  << std::endl;
	}
	for (auto v : results)
		std::cout << std::hex << v << '\n';
	return 0;
}
