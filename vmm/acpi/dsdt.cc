#include "vmm/acpi/dsdt.h"

#include <fmt/format.h>

#include "vmm/acpi/resources.h"
#include "vmm/layout.h"

namespace vmm::acpi {
namespace {

using namespace aml;  // so that this file reads like ASL

// PCI Firmware Specification 3.3, 4.5: the guest asks which features of the bridge it may control.
// All of them: there is no firmware that would compete. Only an unknown UUID is refused.
Term pci_osc() {
  constexpr uint64_t kUnknownUuid = 1 << 2;
  return method("_OSC", 4,
                {
                    if_true(equal(argument(0), uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766")),
                            {return_value(argument(3))}),
                    create_dword_field(argument(3), 0, "CDW1"),
                    or_into(reference("CDW1"), integer(kUnknownUuid)),
                    return_value(argument(3)),
                });
}

// No routes for INTx pins: every function on the bus has MSI-X.
Term pci_host_bridge() {
  using namespace layout;
  return device("PCI0", {
                            name("_HID", eisa_id("PNP0A08")),
                            name("_CID", eisa_id("PNP0A03")),
                            name("_SEG", integer(0)),
                            name("_BBN", integer(0)),
                            name("_UID", integer(0)),
                            name("_CRS", resource_template({
                                             word_bus_number(0, 0),
                                             io(kPortPciConfig, 8),
                                             word_io(0, kPortPciConfig - 1),
                                             word_io(kPortPciConfig + 8, 0xFFFF),
                                             dword_memory(kPciWindow, kPciWindowSize),
                                         })),
                            name("_PRT", package({})),
                            pci_osc(),
                        });
}

// Linux uses ECAM only where a motherboard resource or the memory map reserves it.
Term motherboard_resources() {
  using namespace layout;
  return device("MBRD", {
                            name("_HID", eisa_id("PNP0C02")),
                            name("_UID", integer(0)),
                            name("_CRS", resource_template({
                                             memory32_fixed(kPciEcam, kPciEcamSize),
                                             io(kPortPm1Event, 16),
                                         })),
                        });
}

Term serial_port() {
  return device("COM1", {
                            name("_HID", eisa_id("PNP0501")),
                            name("_UID", integer(0)),
                            name("_CRS", resource_template({
                                             io(layout::kPortSerial, 8),
                                             irq(layout::kGsiSerial),
                                         })),
                        });
}

// No interrupt: the clock has no alarm.
Term real_time_clock() {
  return device("RTC", {
                           name("_HID", eisa_id("PNP0B00")),
                           name("_CRS", resource_template({io(layout::kPortRtc, 2)})),
                       });
}

// Where a guest's kernel says that it panicked (QEMU docs/specs/pvpanic).
Term panic_notifier() {
  return device("PEVT", {
                            name("_HID", string("QEMU0001")),
                            name("_CRS", resource_template({io(layout::kPortPvpanic, 1)})),
                        });
}

// The identity of this run of the guest ("Virtual Machine Generation ID", Microsoft 2018): 16 bytes
// of memory, another value in each restored copy. Linux and Windows know it by _CID.
Term generation_id() {
  return device("VGEN",
                {
                    name("_HID", string("MVMM0001")),
                    name("_CID", string("VM_Gen_Counter")),
                    name("_DDN", string("VM_Gen_Counter")),
                    name("ADDR", package({integer(layout::kGenerationId.value), integer(0)})),
                });
}

// Runs when general-purpose event kGpeGeneration comes, an edge.
Term general_purpose_events() {
  constexpr uint64_t kGenerationChanged = 0x80;
  return scope("\\_GPE", {method(fmt::format("_E{:02X}", layout::kGpeGeneration), 0,
                                 {notify("\\_SB.VGEN", kGenerationChanged)})});
}

// The MADT refers to these by _UID.
Term processor(uint32_t cpu) {
  return device(fmt::format("C{:03X}", cpu), {
                                                 name("_HID", string("ACPI0007")),
                                                 name("_UID", integer(cpu)),
                                             });
}

}  // namespace

aml::Term dsdt_body(uint32_t cpus) {
  Terms devices = {
      pci_host_bridge(), motherboard_resources(), serial_port(),
      real_time_clock(), panic_notifier(),        generation_id(),
  };
  for (uint32_t cpu = 0; cpu < cpus; cpu++) devices.push_back(processor(cpu));
  Term body = scope("\\_SB", devices);
  // What the guest writes to SLP_TYP of PM1a and PM1b in order to power off.
  Term s5 = name("\\_S5", package({integer(layout::kSleepTypeOff), integer(layout::kSleepTypeOff),
                                   integer(0), integer(0)}));
  Term events = general_purpose_events();
  for (const Term& term : {s5, events}) {
    body.bytes.insert(body.bytes.end(), term.bytes.begin(), term.bytes.end());
  }
  return body;
}

}  // namespace vmm::acpi
