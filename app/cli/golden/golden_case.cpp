// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/golden_case.h"

#include "core/checkpoint/checkpoint_reader.h"
#include "core/tensor/half.h"

#include <cstring>

namespace rankscope::golden {
namespace {

template <class T>
void widen(const TensorView& view, MatrixD& target)
{
    for (Index i = 0; i < target.size(); ++i) {
        T value;
        std::memcpy(&value, view.bytes.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
        target.data()[i] = static_cast<double>(value);
    }
}

MatrixD to_double(const TensorView& view)
{
    const Index count = element_count(view.shape);
    const Index rows = view.shape.size() < 2 ? 1 : view.shape.front();
    MatrixD result(rows, rows == 0 ? 0 : count / rows);
    if (view.dtype == DType::F64) {
        widen<double>(view, result);
    } else if (view.dtype == DType::I64) {
        widen<std::int64_t>(view, result);
    } else if (view.dtype == DType::I32) {
        widen<std::int32_t>(view, result);
    } else {
        std::vector<float> decoded(static_cast<std::size_t>(count));
        decode_to_float(view.dtype, view.bytes.data(), decoded.size(), decoded.data());
        for (Index i = 0; i < count; ++i)
            result.data()[i] = static_cast<double>(decoded[static_cast<std::size_t>(i)]);
    }
    return result;
}

bool readable(DType dtype) { return is_float(dtype) || dtype == DType::I64 || dtype == DType::I32; }

} // namespace

Result<GoldenCase> GoldenCase::read(const std::filesystem::path& json_file)
{
    GoldenCase result;
    auto json = Json::read(json_file);
    if (!json)
        return json.error();
    result.json_ = std::move(*json);
    result.name_ = json_file.stem().string();
    result.method_ = result.json_["method"].string();
    if (result.method_.empty())
        return bad_input("the case names no method", json_file.string());
    auto tensor_file = json_file;
    tensor_file.replace_extension(".safetensors");
    if (!std::filesystem::exists(tensor_file))
        return result; // some cases are numbers only
    auto reader = CheckpointReader::open(tensor_file);
    if (!reader)
        return reader.error();
    for (const TensorInfo& info : (*reader)->tensors()) {
        auto view = (*reader)->view(info.name);
        if (!view)
            return view.error();
        if (!readable(view->dtype))
            return bad_input("a golden case holds numbers of type F64, F32, F16, BF16, I64 or I32",
                             tensor_file.string() + ": " + info.name);
        result.tensors_.emplace(info.name, to_double(*view));
        if (auto whole = (*reader)->confirm(info.name); !whole)
            return whole.error();
    }
    return result;
}

const MatrixD& GoldenCase::tensor(std::string_view name) const
{
    static const MatrixD missing;
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? missing : found->second;
}

} // namespace rankscope::golden
