// The life of the guest after its boot: the script or shell, the power button, the end.
// Called by process 1 only; neither function returns.
#pragma once

// Runs SCRIPT (NULL: a shell on the console), reports its status and powers off. Meanwhile
// the ACPI power button and the signals of busybox's poweroff, reboot and halt end the guest.
_Noreturn void Supervise(const char* script);

// Ends all processes, unmounts, and calls reboot(2) with ACTION (RB_POWER_OFF, ...).
_Noreturn void Shutdown(int action);
