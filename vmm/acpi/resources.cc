#include "vmm/acpi/resources.h"

#include <cassert>
#include <concepts>

namespace vmm::acpi::aml {
namespace {

// Tags: small items carry their length in the low three bits, large ones in two bytes after it.
constexpr uint8_t kIrqTag = 0x22;
constexpr uint8_t kIoTag = 0x47;
constexpr uint8_t kEndTag = 0x79;
constexpr uint8_t kMemory32FixedTag = 0x86;
constexpr uint8_t kDwordAddressTag = 0x87;
constexpr uint8_t kWordAddressTag = 0x88;

constexpr uint8_t kDecode16 = 1;
constexpr uint8_t kReadWrite = 1;

// Address space descriptors, tables 6.47 to 6.50.
constexpr uint8_t kTypeMemory = 0;
constexpr uint8_t kTypeIo = 1;
constexpr uint8_t kTypeBusNumber = 2;
constexpr uint8_t kFixedMinAndMax = 1 << 2 | 1 << 3;  // and "producer"
constexpr uint8_t kEntireIoRange = 3;                 // ISA and non-ISA ports

template <std::unsigned_integral T>
void append(std::vector<uint8_t>& bytes, T value) {
  for (size_t i = 0; i < sizeof value; i++) {
    bytes.push_back(static_cast<uint8_t>(uint64_t{value} >> 8 * i));
  }
}

template <std::unsigned_integral T>
Resource address_space(uint8_t tag, uint8_t type, uint8_t type_flags, T first, T last) {
  constexpr uint16_t kLength = 3 + 5 * sizeof(T);
  Resource resource{{tag}};
  append(resource.bytes, kLength);
  resource.bytes.insert(resource.bytes.end(), {type, kFixedMinAndMax, type_flags});
  // Granularity, minimum, maximum, translation offset, length.
  for (T value : {T{0}, first, last, T{0}, static_cast<T>(last - first + 1)}) {
    append(resource.bytes, value);
  }
  return resource;
}

}  // namespace

Resource io(uint16_t first_port, uint8_t count) {
  constexpr uint8_t kAlignment = 1;
  Resource resource{{kIoTag, kDecode16}};
  append(resource.bytes, first_port);
  append(resource.bytes, first_port);
  resource.bytes.insert(resource.bytes.end(), {kAlignment, count});
  return resource;
}

Resource irq(unsigned isa_irq) {
  assert(isa_irq < 16);
  Resource resource{{kIrqTag}};
  append(resource.bytes, static_cast<uint16_t>(1u << isa_irq));
  return resource;
}

Resource memory32_fixed(Gpa base, uint32_t size) {
  assert(base.value + size <= uint64_t{1} << 32);
  Resource resource{{kMemory32FixedTag}};
  append(resource.bytes, uint16_t{9});
  resource.bytes.push_back(kReadWrite);
  append(resource.bytes, static_cast<uint32_t>(base.value));
  append(resource.bytes, size);
  return resource;
}

Resource word_bus_number(uint16_t first, uint16_t last) {
  return address_space(kWordAddressTag, kTypeBusNumber, 0, first, last);
}

Resource word_io(uint16_t first, uint16_t last) {
  return address_space(kWordAddressTag, kTypeIo, kEntireIoRange, first, last);
}

Resource dword_memory(Gpa base, uint32_t size) {
  assert(size > 0 && base.value + size <= uint64_t{1} << 32);
  auto first = static_cast<uint32_t>(base.value);
  return address_space(kDwordAddressTag, kTypeMemory, kReadWrite, first, first + (size - 1));
}

Term resource_template(const std::vector<Resource>& resources) {
  std::vector<uint8_t> bytes;
  for (const Resource& resource : resources) {
    bytes.insert(bytes.end(), resource.bytes.begin(), resource.bytes.end());
  }
  bytes.insert(bytes.end(), {kEndTag, 0});  // checksum 0: not used
  return buffer(bytes);
}

}  // namespace vmm::acpi::aml
