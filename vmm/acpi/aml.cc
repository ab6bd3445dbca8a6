#include "vmm/acpi/aml.h"

#include <cassert>
#include <charconv>

namespace vmm::acpi::aml {
namespace {

// Opcodes, ACPI 6.5 table 20.2; kExtended begins a two-byte one.
enum Op : uint8_t {
  kZero = 0x00,
  kOne = 0x01,
  kName = 0x08,
  kByte = 0x0A,
  kWord = 0x0B,
  kDword = 0x0C,
  kString = 0x0D,
  kQword = 0x0E,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kMethod = 0x14,
  kDualName = 0x2E,
  kMultiName = 0x2F,
  kExtended = 0x5B,
  kRoot = 0x5C,
  kArg0 = 0x68,
  kOr = 0x7D,
  kDevice = 0x82,  // after kExtended
  kNotify = 0x86,
  kCreateDwordField = 0x8A,
  kEqual = 0x93,
  kIf = 0xA0,
  kReturn = 0xA4,
};

Term operator+(Term left, const Term& right) {
  left.bytes.insert(left.bytes.end(), right.bytes.begin(), right.bytes.end());
  return left;
}

Term op(uint8_t code) { return {{code}}; }

Term join(const Terms& terms) {
  Term joined;
  for (const Term& term : terms) joined = std::move(joined) + term;
  return joined;
}

Term little_endian(uint64_t value, unsigned size) {
  Term term;
  for (unsigned i = 0; i < size; i++) term.bytes.push_back(static_cast<uint8_t>(value >> 8 * i));
  return term;
}

// PkgLength counts itself. In one byte it has six bits; in more the first has four, and the number
// of the others above them (20.2.4).
Term with_length(const Term& body) {
  if (body.bytes.size() + 1 < 1 << 6)
    return Term{{static_cast<uint8_t>(body.bytes.size() + 1)}} + body;
  for (unsigned extra = 1; extra <= 3; extra++) {
    size_t length = body.bytes.size() + 1 + extra;
    if (length >= size_t{1} << (4 + 8 * extra)) continue;
    auto lead = static_cast<uint8_t>(extra << 6 | (length & 0xF));
    return Term{{lead}} + little_endian(length >> 4, extra) + body;
  }
  assert(!"AML object beyond 256 MiB");
  return {};
}

Term encode_name(std::string_view path) {
  Term prefix, segments;
  if (path.starts_with('\\')) {
    prefix = op(kRoot);
    path.remove_prefix(1);
  }
  unsigned count = 0;
  while (!path.empty()) {
    std::string_view segment = path.substr(0, path.find('.'));
    assert(!segment.empty() && segment.size() <= 4);
    path.remove_prefix(std::min(path.size(), segment.size() + 1));
    for (size_t i = 0; i < 4; i++) {
      segments.bytes.push_back(i < segment.size() ? static_cast<uint8_t>(segment[i]) : '_');
    }
    count++;
  }
  assert(count >= 1 && count <= 255);
  if (count == 2) prefix = prefix + op(kDualName);
  if (count > 2) prefix = prefix + Term{{kMultiName, static_cast<uint8_t>(count)}};
  return prefix + segments;
}

uint8_t hex_byte(std::string_view digits) {
  uint8_t value = 0;
  auto end = std::from_chars(digits.data(), digits.data() + 2, value, 16);
  assert(end.ptr == digits.data() + 2);
  (void)end;
  return value;
}

}  // namespace

Term integer(uint64_t value) {
  if (value == 0) return op(kZero);
  if (value == 1) return op(kOne);
  if (value <= 0xFF) return op(kByte) + little_endian(value, 1);
  if (value <= 0xFFFF) return op(kWord) + little_endian(value, 2);
  if (value <= 0xFFFF'FFFF) return op(kDword) + little_endian(value, 4);
  return op(kQword) + little_endian(value, 8);
}

Term string(std::string_view text) {
  return op(kString) + Term{{text.begin(), text.end()}} + Term{{0}};
}

Term buffer(const std::vector<uint8_t>& bytes) {
  return op(kBuffer) + with_length(integer(bytes.size()) + Term{bytes});
}

Term package(const Terms& elements) {
  assert(elements.size() <= 255);
  return op(kPackage) + with_length(Term{{static_cast<uint8_t>(elements.size())}} + join(elements));
}

// Three letters of five bits and four hexadecimal digits, most significant byte first.
Term eisa_id(std::string_view id) {
  assert(id.size() == 7);
  auto letter = [&](size_t at) { return static_cast<uint32_t>(id[at] - '@') & 0x1F; };
  uint32_t letters = letter(0) << 10 | letter(1) << 5 | letter(2);
  return op(kDword) + Term{{static_cast<uint8_t>(letters >> 8), static_cast<uint8_t>(letters),
                            hex_byte(id.substr(3)), hex_byte(id.substr(5))}};
}

// The first three groups are stored little-endian.
Term uuid(std::string_view text) {
  assert(text.size() == 36);
  std::vector<uint8_t> bytes;
  for (size_t at : {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34}) {
    bytes.push_back(hex_byte(text.substr(at)));
  }
  return buffer(bytes);
}

Term name(std::string_view path, const Term& value) {
  return op(kName) + encode_name(path) + value;
}

Term scope(std::string_view path, const Terms& terms) {
  return op(kScope) + with_length(encode_name(path) + join(terms));
}

Term device(std::string_view path, const Terms& terms) {
  return op(kExtended) + op(kDevice) + with_length(encode_name(path) + join(terms));
}

Term method(std::string_view path, unsigned arguments, const Terms& statements) {
  assert(arguments <= 7);
  constexpr uint8_t kSerialized = 1 << 3;
  auto flags = static_cast<uint8_t>(arguments | kSerialized);
  return op(kMethod) + with_length(encode_name(path) + Term{{flags}} + join(statements));
}

Term create_dword_field(const Term& source, uint64_t byte_index, std::string_view field) {
  return op(kCreateDwordField) + source + integer(byte_index) + encode_name(field);
}

Term argument(unsigned number) {
  assert(number <= 6);
  return op(static_cast<uint8_t>(kArg0 + number));
}

Term reference(std::string_view path) { return encode_name(path); }

Term equal(const Term& left, const Term& right) { return op(kEqual) + left + right; }

Term if_true(const Term& condition, const Terms& statements) {
  return op(kIf) + with_length(condition + join(statements));
}

Term or_into(const Term& target, const Term& value) { return op(kOr) + target + value + target; }

Term return_value(const Term& value) { return op(kReturn) + value; }

Term notify(std::string_view device, uint64_t value) {
  return op(kNotify) + encode_name(device) + integer(value);
}

}  // namespace vmm::acpi::aml
