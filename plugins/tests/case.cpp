#include "case.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>
#include <stdexcept>

namespace nmn::plugin::test
{
namespace
{

using nvinfer1::DataType;

std::vector<char> readFile(std::string const& path, size_t size)
{
    std::ifstream file(path, std::ios::binary);
    std::vector<char> content(
        (std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (content.size() != size)
    {
        throw std::runtime_error(path + " must have " + std::to_string(size) + " bytes; got "
                                 + std::to_string(content.size()));
    }
    return content;
}

std::vector<float> readFloats(std::string const& path, int64_t count)
{
    std::vector<char> const content = readFile(path, count * sizeof(float));
    return toFloat(DataType::kFLOAT, content);
}

DataType typeOf(std::string const& name)
{
    if (name == "fp32")
    {
        return DataType::kFLOAT;
    }
    if (name == "fp16" || name == "bf16")
    {
        return name == "fp16" ? DataType::kHALF : DataType::kBF16;
    }
    throw std::runtime_error("a type must be fp32, fp16 or bf16; got " + name);
}

Tensor readTensor(std::istream& line)
{
    std::string type;
    line >> type;
    Tensor tensor{typeOf(type), {}};
    for (int64_t size = 0; line >> size;)
    {
        tensor.sizes.push_back(size);
    }
    return tensor;
}

//! Copy elements between [images, channels, pixels] and [images, pixels, channels].
std::vector<char> transpose(Tensor const& tensor, std::vector<char> const& content, bool isForward)
{
    size_t const bytes = bytesOf(tensor.type);
    int64_t const images = tensor.sizes[0];
    int64_t const channels = tensor.sizes[1];
    int64_t const pixels = countOf(tensor) / std::max<int64_t>(1, images * channels);
    std::vector<char> moved(content.size());
    for (int64_t image = 0; image < images; ++image)
    {
        for (int64_t channel = 0; channel < channels; ++channel)
        {
            for (int64_t pixel = 0; pixel < pixels; ++pixel)
            {
                size_t first = (image * channels + channel) * pixels + pixel;
                size_t last = (image * pixels + pixel) * channels + channel;
                if (!isForward)
                {
                    std::swap(first, last);
                }
                std::memcpy(&moved[last * bytes], &content[first * bytes], bytes);
            }
        }
    }
    return moved;
}

float widen(DataType type, uint16_t bits)
{
    if (type == DataType::kBF16)
    {
        uint32_t const wide = static_cast<uint32_t>(bits) << 16;
        float value = 0.F;
        std::memcpy(&value, &wide, sizeof(value));
        return value;
    }
    int const exponent = (bits >> 10) & 0x1F;
    auto const mantissa = static_cast<float>(bits & 0x3FF);
    float const sign = (bits & 0x8000) != 0 ? -1.F : 1.F;
    if (exponent == 0x1F)
    {
        return mantissa == 0.F ? sign * INFINITY : NAN;
    }
    return exponent == 0 ? sign * std::ldexp(mantissa, -24)
                         : sign * std::ldexp(mantissa + 1024.F, exponent - 25);
}

} // namespace

size_t bytesOf(DataType type)
{
    return type == DataType::kFLOAT ? 4 : 2;
}

int64_t countOf(Tensor const& tensor)
{
    return std::accumulate(tensor.sizes.begin(), tensor.sizes.end(), int64_t{1},
        [](int64_t a, int64_t b) { return a * b; });
}

Case::Case(std::string const& folder) : name(folder.substr(folder.rfind('/') + 1))
{
    std::ifstream file(folder + "/case.txt");
    for (std::string text; std::getline(file, text);)
    {
        std::istringstream line(text);
        std::string kind;
        line >> kind;
        if (kind == "input")
        {
            inputs.push_back(readTensor(line));
            std::string const path = folder + "/input" + std::to_string(contents.size()) + ".bin";
            contents.push_back(
                readFile(path, countOf(inputs.back()) * bytesOf(inputs.back().type)));
            continue;
        }
        if (kind == "output")
        {
            output = readTensor(line);
            continue;
        }
        std::string key;
        line >> key;
        if (kind == "op")
        {
            op = key;
        }
        else if (kind == "number")
        {
            float value = 0.F;
            line >> value;
            fields.number(key, value);
        }
        else if (kind == "integers")
        {
            std::vector<int32_t> values;
            for (int32_t value = 0; line >> value;)
            {
                values.push_back(value);
            }
            fields.integers(key, values);
        }
        else
        {
            throw std::runtime_error(folder + "/case.txt must not have a line '" + text + "'");
        }
    }
    if (op.empty() || inputs.empty())
    {
        throw std::runtime_error(folder + "/case.txt must name an op and its inputs");
    }
    low = readFloats(folder + "/low.bin", countOf(output));
    high = readFloats(folder + "/high.bin", countOf(output));
}

std::vector<char> toChannelsLast(Tensor const& tensor, std::vector<char> const& content)
{
    return transpose(tensor, content, true);
}

std::vector<char> toChannelsFirst(Tensor const& tensor, std::vector<char> const& content)
{
    return transpose(tensor, content, false);
}

std::vector<float> toFloat(DataType type, std::vector<char> const& content)
{
    std::vector<float> values(content.size() / bytesOf(type));
    for (size_t i = 0; i < values.size(); ++i)
    {
        if (type == DataType::kFLOAT)
        {
            std::memcpy(&values[i], &content[i * sizeof(float)], sizeof(float));
            continue;
        }
        uint16_t bits = 0;
        std::memcpy(&bits, &content[i * sizeof(bits)], sizeof(bits));
        values[i] = widen(type, bits);
    }
    return values;
}

} // namespace nmn::plugin::test
