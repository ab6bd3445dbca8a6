// What a payload's own source provides: one function, called in ring 3 with interrupts off
// once the runtime is ready. Its result is the exit status of the VM.
#pragma once

unsigned PayloadMain(void);
