// The IDT: every exception is reported on the serial port by ring 0 and ends the payload
// with kExitException.
#pragma once

void ExceptionsInit(void);
