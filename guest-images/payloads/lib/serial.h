// The first serial port (16550 at I/O port 0x3F8), polled. Every port access is a VM exit
// of several microseconds: write whole lines, poll for input seldom.
#pragma once

#include <stddef.h>

void SerialInit(void);
void SerialWrite(const char *text, size_t bytes);

// Waits until the last byte has left the transmitter.
void SerialFlush(void);

// The next byte that came in, or -1. One exit when there is none.
int SerialPoll(void);
