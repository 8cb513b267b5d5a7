// SPDX-License-Identifier: GPL-3.0-or-later
//
// A signal handler may take no lock and allocate nothing, so the ranges stand in a list that only grows: a
// range that is given up stays in it with begin = 0 until the next guard takes it over.
#include "core/tensor/detail/fault_guard.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

namespace rankscope::detail {

struct GuardedRange {
    std::atomic<std::uintptr_t> begin = 0; ///< 0: nobody's
    std::atomic<std::size_t> size = 0;
    std::atomic<bool> damaged = false;
    GuardedRange* next = nullptr;
};

namespace {

std::atomic<GuardedRange*> first_range = nullptr;
std::mutex registration;
struct sigaction handler_before {};
std::uintptr_t page_size = 4096;

/// The range that holds `address`. A range that is taken over meanwhile shows begin = 0 in between, so that
/// begin and size that were read around each other belong together.
GuardedRange* range_of(std::uintptr_t address)
{
    for (GuardedRange* range = first_range.load(); range; range = range->next) {
        const std::uintptr_t begin = range->begin.load();
        const std::size_t size = range->size.load();
        if (begin != 0 && begin == range->begin.load() && address >= begin && address - begin < size)
            return range;
    }
    return nullptr;
}

bool put_zeros(GuardedRange& range, std::uintptr_t address)
{
    const std::uintptr_t from = address / page_size * page_size;
    const std::uintptr_t end = range.begin.load() + range.size.load();
    range.damaged.store(true);
    return ::mmap(reinterpret_cast<void*>(from), end - from, PROT_READ,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0)
           != MAP_FAILED;
}

/// What would have happened without us.
void pass_on(int number, siginfo_t* info, void* context)
{
    if ((handler_before.sa_flags & SA_SIGINFO) != 0) {
        handler_before.sa_sigaction(number, info, context);
    } else if (handler_before.sa_handler != SIG_DFL && handler_before.sa_handler != SIG_IGN) {
        handler_before.sa_handler(number);
    } else {
        ::signal(number, SIG_DFL);
        ::raise(number); // waits until this handler returns
    }
}

void on_bus_error(int number, siginfo_t* info, void* context)
{
    const int error_before = errno;
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    GuardedRange* range = info->si_code > 0 ? range_of(address) : nullptr; // ≤ 0: sent by a program
    if (!range || !put_zeros(*range, address))
        pass_on(number, info, context);
    errno = error_before;
}

void install_handler()
{
    static std::once_flag once;
    std::call_once(once, [] {
        page_size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        struct sigaction action {};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
        ::sigemptyset(&action.sa_mask);
        ::sigaction(SIGBUS, &action, &handler_before);
    });
}

GuardedRange* free_range()
{
    for (GuardedRange* range = first_range.load(); range; range = range->next) {
        if (range->begin.load() == 0)
            return range;
    }
    auto* range = new GuardedRange; // stays: a handler may be walking the list
    range->next = first_range.load();
    first_range.store(range);
    return range;
}

} // namespace

FaultGuard::FaultGuard(const std::byte* data, std::size_t size)
{
    install_handler();
    const std::lock_guard lock(registration);
    range_ = free_range();
    range_->damaged.store(false);
    range_->size.store(size);
    range_->begin.store(reinterpret_cast<std::uintptr_t>(data));
}

FaultGuard::~FaultGuard()
{
    const std::lock_guard lock(registration);
    range_->begin.store(0);
}

bool FaultGuard::damaged() const { return range_->damaged.load(); }

} // namespace rankscope::detail
