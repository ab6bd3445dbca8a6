// A HEAD that could not be replaced after its branch committed a snapshot still names the parent
// of before, with layers that the snapshot has sealed. Their logs say less than the snapshot does:
// what the guest wrote without a flush before it is in the snapshot alone. So what such a HEAD
// means is the snapshot, and the layers after it.
#pragma once

#include "snapshot/store/head.h"
#include "vmm/base/result.h"

namespace snapshot {

// `head` as the branch's own snapshots in the store say it is by now: on the one that has sealed
// most of its layers. Those between may be gone. Damaged ones say nothing.
base::Result<Head> catch_up(Storage& storage, const Format& format, Head head);

}  // namespace snapshot
