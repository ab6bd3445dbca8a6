// Kernel modules for the guest's init: loads by name with dependencies, and by the devices
// that are there. Reads /lib/modules/RELEASE/modules.{dep,alias} as depmod makes them;
// modules are stored uncompressed. Called by process 1 only.
#pragma once

// Loads one module and what it needs. A module that is built in, loaded already or absent is
// passed over: the init cannot do anything about it, and the device's user will notice.
void LoadModule(const char* name);

// Loads the modules whose aliases match the devices present, buses first, then what is behind them.
void LoadModulesForDevices(void);
