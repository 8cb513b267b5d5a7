// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/sentence_piece_model.h"

#include "core/model/detail/bpe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <unordered_map>

namespace rankscope::detail {
namespace {

/// One field of a message: a number, or the bytes of a text or of a message inside.
struct Field {
    std::uint64_t number = 0;
    std::uint64_t value = 0; ///< of whole numbers; bits of a float
    std::string_view bytes;
    int wire = 0;
    std::size_t offset = 0; ///< of its first byte in the file
};

enum Wire { Varint = 0, Fixed64 = 1, Delimited = 2, Fixed32 = 5 };

/// Reads the fields of one message in turn, never beyond its end.
class Message {
public:
    explicit Message(std::string_view bytes, std::size_t offset = 0) : bytes_(bytes), offset_(offset) {}

    bool at_end() const { return position_ == bytes_.size(); }

    Result<Field> next()
    {
        Field field;
        field.offset = offset_ + position_;
        const auto tag = varint();
        if (!tag)
            return tag.error();
        field.number = *tag >> 3;
        field.wire = static_cast<int>(*tag & 7U);
        if (field.number == 0)
            return problem("a field has the number 0");
        switch (field.wire) {
        case Varint: {
            const auto value = varint();
            if (!value)
                return value.error();
            field.value = *value;
            return field;
        }
        case Fixed64:
            return fixed(field, 8);
        case Fixed32:
            return fixed(field, 4);
        case Delimited: {
            const auto length = varint();
            if (!length)
                return length.error();
            if (*length > bytes_.size() - position_)
                return problem("a field claims " + std::to_string(*length) + " bytes, and "
                               + std::to_string(bytes_.size() - position_) + " are left");
            field.offset = offset_ + position_;
            field.bytes = bytes_.substr(position_, static_cast<std::size_t>(*length));
            position_ += static_cast<std::size_t>(*length);
            return field;
        }
        default:
            return problem("a field has the unknown wire type " + std::to_string(field.wire));
        }
    }

private:
    Error problem(const std::string& message) const
    {
        return bad_input("not a SentencePiece model: " + message + " (at byte "
                         + std::to_string(offset_ + position_) + ")");
    }

    Result<std::uint64_t> varint()
    {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (position_ == bytes_.size())
                return problem("it ends inside a number");
            const auto byte = static_cast<unsigned char>(bytes_[position_++]);
            value |= std::uint64_t{byte & 0x7FU} << shift;
            if (byte < 0x80)
                return value;
        }
        return problem("a number has more than ten bytes");
    }

    Result<Field> fixed(Field field, std::size_t size)
    {
        if (size > bytes_.size() - position_)
            return problem("it ends inside a number");
        std::memcpy(&field.value, bytes_.data() + position_, size);
        position_ += size;
        return field;
    }

    std::string_view bytes_;
    std::size_t offset_;
    std::size_t position_ = 0;
};

Status for_each_field(const Message& whole, const std::function<Status(const Field&)>& use)
{
    Message message = whole;
    while (!message.at_end()) {
        const auto field = message.next();
        if (!field)
            return field.error();
        if (auto used = use(*field); !used)
            return used;
    }
    return {};
}

Status expect(const Field& field, Wire wire)
{
    if (field.wire == wire)
        return {};
    return bad_input("not a SentencePiece model: field " + std::to_string(field.number)
                     + " has the wire type " + std::to_string(field.wire) + " (at byte "
                     + std::to_string(field.offset) + ")");
}

/// What the trainer and the normalizer were told, with the defaults of sentencepiece_model.proto.
struct Settings {
    std::uint64_t model_type = 1;
    std::string bos_piece = "<s>";
    std::string normalizer;
    bool has_character_map = false;
    bool dummy_prefix = true;
    bool removes_extra_spaces = true;
    bool escapes_spaces = true;
    bool spaces_behind = false;
};

Status read_piece(const Field& message, Vocabulary& vocabulary)
{
    std::string text;
    float score = 0.0F;
    std::uint64_t type = NormalPiece;
    const Status read = for_each_field(Message(message.bytes, message.offset), [&](const Field& field) {
        Status fits;
        if (field.number == 1) {
            fits = expect(field, Delimited);
            text = std::string(field.bytes);
        } else if (field.number == 2) {
            fits = expect(field, Fixed32);
            score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
        } else if (field.number == 3) {
            fits = expect(field, Varint);
            type = field.value;
        }
        return fits;
    });
    if (!read)
        return read;
    const std::string where = "token " + std::to_string(vocabulary.pieces.size());
    if (type < NormalPiece || type > BytePiece)
        return bad_input("its type " + std::to_string(type) + " is not known", where);
    if (text.empty())
        return bad_input("it is empty", where);
    vocabulary.pieces.push_back(std::move(text));
    vocabulary.scores.push_back(static_cast<double>(score));
    vocabulary.types.push_back(static_cast<std::int64_t>(type));
    return {};
}

Status read_trainer(const Field& message, Settings& settings)
{
    return for_each_field(Message(message.bytes, message.offset), [&](const Field& field) {
        Status fits;
        if (field.number == 3) {
            fits = expect(field, Varint);
            settings.model_type = field.value;
        } else if (field.number == 24) {
            fits = expect(field, Varint);
            settings.spaces_behind = field.value != 0;
        } else if (field.number == 46) {
            fits = expect(field, Delimited);
            settings.bos_piece = std::string(field.bytes);
        }
        return fits;
    });
}

Status read_normalizer(const Field& message, Settings& settings)
{
    return for_each_field(Message(message.bytes, message.offset), [&](const Field& field) {
        Status fits;
        if (field.number <= 2) {
            fits = expect(field, Delimited);
            if (field.number == 1)
                settings.normalizer = std::string(field.bytes.substr(0, 80));
            else
                settings.has_character_map = !field.bytes.empty();
        } else if (field.number <= 5) {
            fits = expect(field, Varint);
            const bool value = field.value != 0;
            (field.number == 3   ? settings.dummy_prefix
             : field.number == 4 ? settings.removes_extra_spaces
                                 : settings.escapes_spaces) = value;
        }
        return fits;
    });
}

Status accept(const Settings& settings)
{
    static constexpr std::array<std::string_view, 5> k_types = {"", "Unigram", "BPE", "Word", "Char"};
    if (settings.model_type != 2)
        return bad_input("the tokenizer model \""
                             + (settings.model_type < k_types.size()
                                    ? std::string(k_types[settings.model_type])
                                    : std::to_string(settings.model_type))
                             + "\" is not known; known: BPE",
                         "model_type", "Convert it to a tokenizer.json with transformers");
    if (settings.has_character_map)
        return bad_input("the normalizer \"" + settings.normalizer + "\" is not known; known: identity",
                         "normalizer_spec", "Convert it to a tokenizer.json with transformers");
    if (settings.removes_extra_spaces)
        return bad_input("removing extra spaces is not known", "remove_extra_whitespaces",
                         "Convert it to a tokenizer.json with transformers");
    if (!settings.escapes_spaces)
        return bad_input("spaces that stay as they are are not known", "escape_whitespaces");
    if (settings.spaces_behind)
        return bad_input("spaces behind words are not known", "treat_whitespace_as_suffix");
    return {};
}

/// Unknown and first token, and that no piece is there twice.
Status find_special(const Settings& settings, Vocabulary& vocabulary)
{
    std::unordered_map<std::string_view, std::size_t> seen;
    for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
        const auto [known, added] = seen.emplace(vocabulary.pieces[i], i);
        if (!added)
            return bad_input("it is the same as token " + std::to_string(known->second),
                             "token " + std::to_string(i));
        if (vocabulary.types[i] != UnknownPiece)
            continue;
        if (vocabulary.unknown)
            return bad_input("it is a second unknown token", "token " + std::to_string(i));
        vocabulary.unknown = static_cast<std::int64_t>(i);
    }
    if (!vocabulary.unknown)
        return bad_input("no token is marked as the unknown one");
    const auto bos = seen.find(settings.bos_piece);
    if (bos != seen.end() && vocabulary.types[bos->second] == ControlPiece)
        vocabulary.bos = static_cast<std::int64_t>(bos->second);
    return {};
}

} // namespace

Result<Vocabulary> parse_sentence_piece_model(std::string_view bytes)
{
    Vocabulary vocabulary;
    Settings settings;
    const Status read = for_each_field(Message(bytes), [&](const Field& field) -> Status {
        if (field.number < 1 || field.number > 3)
            return {}; // self tests, denormalizer, extensions
        if (auto fits = expect(field, Delimited); !fits)
            return fits;
        if (field.number == 2)
            return read_trainer(field, settings);
        if (field.number == 3)
            return read_normalizer(field, settings);
        if (static_cast<std::int64_t>(vocabulary.pieces.size()) > k_max_token_id)
            return bad_input("it has more than " + std::to_string(k_max_token_id) + " tokens");
        return read_piece(field, vocabulary);
    });
    if (!read)
        return read.error();
    if (vocabulary.pieces.empty())
        return bad_input("not a SentencePiece model: it holds no tokens");
    if (auto accepted = accept(settings); !accepted)
        return accepted.error();
    if (auto found = find_special(settings, vocabulary); !found)
        return found.error();
    vocabulary.space_in_front = settings.dummy_prefix;
    vocabulary.adds_bos = true;
    return vocabulary;
}

} // namespace rankscope::detail
