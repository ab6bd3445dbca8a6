#include "serial.h"

#include "cpu.h"

enum {
  kData = 0x3f8,
  kInterruptEnable = 0x3f9,
  kFifoControl = 0x3fa,
  kLineControl = 0x3fb,
  kModemControl = 0x3fc,
  kLineStatus = 0x3fd,

  kFifoEnableAndClearTransmit = 0x05,
  kEightBitsNoParity = 0x03,
  kDtrRts = 0x03,
  kDataReady = 0x01,
  kTransmitFifoEmpty = 0x20,
  kTransmitterIdle = 0x40,
  kFifoBytes = 16,
};

void SerialInit(void) {
  Out8(kInterruptEnable, 0);
  Out8(kLineControl, kEightBitsNoParity);
  Out8(kFifoControl, kFifoEnableAndClearTransmit);
  Out8(kModemControl, kDtrRts);
}

void SerialWrite(const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    if (i % kFifoBytes == 0)
      while (!(In8(kLineStatus) & kTransmitFifoEmpty)) CpuRelax();
    Out8(kData, (uint8_t)text[i]);
  }
}

void SerialFlush(void) {
  while (!(In8(kLineStatus) & kTransmitterIdle)) CpuRelax();
}

int SerialPoll(void) { return In8(kLineStatus) & kDataReady ? In8(kData) : -1; }
