// Waiting for locks of the store's files. Each is held for a short time, or as long as a machine
// lives; a killed process holds none.
#pragma once

#include "snapshot/storage.h"
#include "snapshot/types.h"

namespace snapshot {

// Takes the lock; an error where it is not free within a minute.
base::Result<void> wait_for_lock(File& file, File::Lock mode);

// Does the machine of this branch run? Looked at for a moment; under the store's exclusive lock the
// answer "no" stays true, for no branch begins then.
base::Result<bool> branch_is_alive(Storage& storage, const Id& branch);

}  // namespace snapshot
