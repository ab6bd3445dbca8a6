// The lines in which payload `jitter` tells what it saw, for people and programs.
#pragma once

#include "jitter_record.h"

// Totals, the buckets that are not empty, the longest gaps.
void JitterPrintReport(const struct JitterRecord *record, uint64_t number, uint64_t now);

// The ring of events, oldest first.
void JitterPrintEvents(const struct JitterRecord *record);
