// A small ACPI Machine Language encoder (ACPI 6.5, chapter 20): each function makes one term, so
// that a table's source reads like ASL. Pure functions; names and sizes are the program's own, a
// wrong one is an assertion.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace vmm::acpi::aml {

// Encoded bytes of one term: an object, an operator with its operands, or several in a row.
struct Term {
  std::vector<uint8_t> bytes;
};
using Terms = std::vector<Term>;

// Data. Integers take the shortest encoding.
Term integer(uint64_t value);
Term string(std::string_view text);
Term buffer(const std::vector<uint8_t>& bytes);
Term package(const Terms& elements);
Term eisa_id(std::string_view id);  // "PNP0A08", the packed form for _HID and _CID
Term uuid(std::string_view text);   // "33DB4D5B-1FF7-401C-9657-7441C03DD766", as ToUUID does

// Named objects. A name has segments of one to four characters: "_CRS", "\\_SB.PCI0".
Term name(std::string_view path, const Term& value);
Term scope(std::string_view path, const Terms& terms);
Term device(std::string_view path, const Terms& terms);
// Serialized: at most one thread of the guest is in it, so it may create fields.
Term method(std::string_view path, unsigned arguments, const Terms& statements);
Term create_dword_field(const Term& source, uint64_t byte_index, std::string_view field);

// Statements and operators.
Term argument(unsigned number);  // Arg0 to Arg6
Term reference(std::string_view path);
Term equal(const Term& left, const Term& right);
Term if_true(const Term& condition, const Terms& statements);
Term or_into(const Term& target, const Term& value);  // target |= value
Term return_value(const Term& value);
Term notify(std::string_view device, uint64_t value);

}  // namespace vmm::acpi::aml
