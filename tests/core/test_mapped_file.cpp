// SPDX-License-Identifier: GPL-3.0-or-later
// A mapped file that is cut off while it is read: the system sends SIGBUS, the program must go on and say so.
#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/tensor/mapped_file.h"

#include <QTemporaryDir>
#include <QTest>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

constexpr Index k_side = 1024;

/// Runs `body` in a child process and returns how it ended (waitpid's status).
template <class Body>
int in_child(Body body)
{
    const pid_t child = ::fork();
    if (child == 0) {
        body();
        ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
}

/// A mapping that is none of ours, read behind the end of its file.
void fault_elsewhere(const fs::path& path)
{
    std::ofstream(path) << "x";
    const int file = ::open(path.c_str(), O_RDWR);
    auto* bytes = static_cast<volatile char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0));
    fs::resize_file(path, 0);
    [[maybe_unused]] const char value = bytes[0];
}

void exit_with_seven(int) { ::_exit(7); }

} // namespace

class TestMappedFile : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    fs::path path(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }

    std::unique_ptr<CheckpointReader> ones(const char* name) const
    {
        const auto written =
            write_safetensors(path(name), {tensor_source("w", Matrix::Ones(k_side, k_side))}, {}, true);
        return written ? *CheckpointReader::open(path(name)) : nullptr;
    }

private Q_SLOTS:
    // The first test: later ones install the handler in this process, and this one needs a process without
    // it.
    void a_handler_that_was_there_before_still_gets_other_faults()
    {
        std::ofstream(path("any")) << "text";
        const int status = in_child([this] {
            std::signal(SIGBUS, exit_with_seven);
            const auto file = MappedFile::open(path("any"));
            fault_elsewhere(path("elsewhere"));
        });
        QVERIFY(WIFEXITED(status));
        QCOMPARE(WEXITSTATUS(status), 7);
    }

    void other_faults_still_end_the_program()
    {
        std::ofstream(path("any")) << "text";
        const int faulted = in_child([this] {
            std::signal(SIGBUS, SIG_DFL);
            const auto file = MappedFile::open(path("any"));
            fault_elsewhere(path("elsewhere"));
        });
        QVERIFY(WIFSIGNALED(faulted) && WTERMSIG(faulted) == SIGBUS);
        const int sent = in_child([this] {
            std::signal(SIGBUS, SIG_DFL);
            const auto file = MappedFile::open(path("any"));
            ::raise(SIGBUS);
        });
        QVERIFY(WIFSIGNALED(sent) && WTERMSIG(sent) == SIGBUS);
    }

    void cut_off_between_asking_and_reading()
    {
        const auto reader = ones("between");
        QVERIFY(reader);
        const auto view = reader->view("w");
        QVERIFY(view && reader->confirm("w"));
        fs::resize_file(path("between"), 8192);
        const Matrix read = view->to_matrix(); // SIGBUS on the third page
        QCOMPARE(read(0, 0), 1.0F);
        QCOMPARE(read(k_side - 1, k_side - 1), 0.0F);
        const auto confirmed = reader->confirm("w");
        QVERIFY(!confirmed);
        QVERIFY(confirmed.error().kind == ErrorKind::BadInput);
        QVERIFY(confirmed.error().sentence().find("shorter") != std::string::npos);

        // Filled up again, as by a download that starts over: what was read in between stays untrusted.
        fs::resize_file(path("between"), fs::file_size(path("between")) + sizeof(float) * k_side * k_side);
        const auto again = reader->read("w");
        QVERIFY(!again);
        QVERIFY(again.error().sentence().find("could not be read") != std::string::npos);
        // A new mapping of the same file, at what may be the same address, starts clean.
        const auto opened = MappedFile::open(path("between"));
        QVERIFY(opened && (*opened)->check());
    }

    void cut_off_while_threads_read()
    {
        const auto reader = ones("threads");
        const auto untouched = ones("untouched");
        QVERIFY(reader && untouched);
        std::atomic<int> good = 0;
        std::atomic<int> wrong = 0;
        std::atomic<int> refused = 0;
        const auto read_until_refused = [&] {
            for (;;) {
                const auto matrix = reader->read("w");
                if (!matrix) {
                    ++refused;
                    return;
                }
                ++good;
                if (!(matrix->array() == 1.0F).all())
                    ++wrong;
                if (!untouched->read("w"))
                    ++wrong;
            }
        };
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i)
            threads.emplace_back(read_until_refused);
        while (good < 20)
            std::this_thread::yield();
        fs::resize_file(path("threads"), 4096);
        for (std::thread& thread : threads)
            thread.join();
        QCOMPARE(wrong.load(), 0);
        QCOMPARE(refused.load(), 4);
        QVERIFY(untouched->read("w"));
    }

    void many_mappings_come_and_go()
    {
        std::ofstream(path("many")) << std::string(10'000, 'x');
        for (int round = 0; round < 100; ++round) {
            std::vector<std::shared_ptr<const MappedFile>> files;
            for (int i = 0; i < 7; ++i)
                files.push_back(*MappedFile::open(path("many")));
            for (const auto& file : files)
                QVERIFY(file->check() && file->bytes().back() == std::byte{'x'});
        }
        QVERIFY(MappedFile::open(path("many")));
    }
};

QTEST_GUILESS_MAIN(TestMappedFile)
#include "test_mapped_file.moc"
