// SPDX-License-Identifier: GPL-3.0-or-later
// Layers as NumPy arrays: the worked example of docs/adding-an-exporter.md.
//
// A .npy file (format 1.0): "\x93NUMPY", version, the length of a header, the header as a Python dictionary
// that ends at a multiple of 64 bytes, then the values. Here float32, little-endian, out × in by rows.
#include "tests/examples/npy_exporter.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/export/detail/export_common.h"
#include "core/export/detail/folder_exporter.h"

namespace rankscope::examples {
namespace {

using namespace export_common;

constexpr std::uint64_t k_header_bytes = 128;

std::string npy_bytes(const Matrix& values)
{
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(values.rows())
                         + ", " + std::to_string(values.cols()) + "), }";
    constexpr std::size_t k_prefix = 10; // magic, version, length
    header.resize(k_header_bytes - k_prefix - 1, ' ');
    header += '\n';
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes += static_cast<char>(header.size());
    bytes += '\0';
    bytes += header;
    bytes.append(reinterpret_cast<const char*>(values.data()),
                 static_cast<std::size_t>(values.size()) * sizeof(float));
    return bytes;
}

class NpyExporter final : public FolderExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{"npy", "NumPy arrays",
                                       "Each layer's Q + L·R as LAYER.npy, float32; loads with numpy.load"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override
    {
        return check_weights_alone(run, model);
    }

    Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const override
    {
        std::uint64_t bytes = 0;
        for (const LinearLayer* layer : replaced_layers(run, model))
            bytes += k_header_bytes + sizeof(float) * static_cast<std::uint64_t>(layer->out * layer->in);
        return bytes;
    }

protected:
    Status write_content(const ExportJob& job, Json&) const override
    {
        return each_file(job, [](const std::filesystem::path& file, const std::string& bytes) {
            return write_text_file(file, bytes, false);
        });
    }

    Status check_content(const ExportJob& job, const Json&) const override
    {
        return each_file(job, [](const std::filesystem::path& file, const std::string& bytes) -> Status {
            const auto found = read_text_file(file, bytes.size() + 1);
            if (!found)
                return found.error();
            if (*found != bytes)
                return bad_input("the array is not what the run holds", file.string(), "Export again");
            return {};
        });
    }

private:
    /// visit(file, its bytes) for each layer in the run's order; one layer is in memory at a time.
    template <class Visit>
    static Status each_file(const ExportJob& job, const Visit& visit)
    {
        const auto layers = replaced_layers(job.run, job.model);
        ExportProgress progress(job.monitor, layers.size());
        for (const LinearLayer* layer : layers) {
            progress.step(layer->name);
            const auto decomposition = job.run.decomposition(layer->name);
            if (!decomposition)
                return decomposition.error();
            if (auto done =
                    visit(job.folder / (layer->name + ".npy"), npy_bytes(decomposition->reconstruct()));
                !done)
                return done;
        }
        return {};
    }
};

} // namespace

const Exporter& npy_exporter()
{
    static const NpyExporter exporter;
    return exporter;
}

} // namespace rankscope::examples
