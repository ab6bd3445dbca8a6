#include "snapshot/store/recovery.h"

#include <fmt/format.h>

#include <cerrno>
#include <string_view>

#include "snapshot/store/store.h"

namespace snapshot {

namespace {

constexpr std::string_view kLogSuffix = ".log";

// The id in the name of a pack, run, layer, layer's log, new manifest or HEAD, or none for what a
// creation of the store that was cut short left; nothing where the name is not ours.
std::optional<Id> id_in(std::string_view name) {
  if (name == kFormatName) return kNoId;
  if (name.ends_with(kLogSuffix)) name.remove_suffix(kLogSuffix.size());
  if (size_t dash = name.find('-'); dash != std::string_view::npos) name.remove_prefix(dash + 1);
  auto id = Id::parse(name);
  return id ? std::optional(*id) : std::nullopt;
}

// A machine that ends takes its place away without the store's lock: what is gone is done.
base::Result<void> unless_gone(base::Result<void> done) {
  if (!done && done.error().os_error() == ENOENT) return {};
  return done;
}

class Remover {
 public:
  Remover(Storage& storage, bool settled) : storage_(storage), settled_(settled) {}

  // Every file of `directory` that stays() does not want and whose name is one of ours.
  template <typename Stays>
  base::Result<void> clean(const std::string& directory, Stays stays) {
    TRY_ASSIGN(const auto names, storage_.list(directory));
    for (const std::string& name : names) {
      const std::string path = fmt::format("{}/{}", directory, name);
      const auto id = id_in(name);
      if (!id || stays(name, path, *id)) continue;
      uint64_t bytes = 0;
      if (auto file = storage_.open(path, Storage::Access::kRead, Storage::Caching::kCached)) {
        bytes = (*file)->disk_bytes().value_or(0);
      }
      if (!settled_) TRY(settle_names(storage_));
      settled_ = true;
      TRY(unless_gone(storage_.remove(path)));
      ++garbage_.files;
      garbage_.bytes += bytes;
    }
    return {};
  }
  const Garbage& garbage() const { return garbage_; }

 private:
  Storage& storage_;
  Garbage garbage_;
  bool settled_;  // see settle_names()
};

}  // namespace

base::Result<References> References::collect(Store& store) {
  References references;
  TRY_ASSIGN(const auto heads, store.heads());
  for (const HeadInfo& info : heads) {
    if (info.alive) references.living.insert(info.branch.high);
    if (!info.damage.empty()) return base::fail(info.damage);
    if (!info.head) {
      if (!info.alive) references.abandoned.insert(info.branch);
      continue;
    }
    references.add(*info.head);
  }

  TRY_ASSIGN(const auto names, store.storage().list("snap"));
  for (const std::string& name : names) {
    const auto id = Id::parse(name);
    if (!id) continue;
    TRY_ASSIGN(const auto snapshot, store.load(*id));
    for (const SpaceInfo& space : snapshot->manifest().spaces) {
      for (const RunInfo& run : space.runs) {
        auto [place, is_new] = references.runs.try_emplace(run.id);
        if (!is_new) continue;
        auto reader =
            std::make_shared<RunReader>(store.storage(), store.format(), space.space, run);
        TRY_ASSIGN(const auto slots, reader->slots());
        for (const SlotInfo& slot : slots) references.files.insert(slot.name());
        references.files.insert(run_name(run.id));
        reader->close();
        place->second = {space.space, std::move(reader)};
      }
    }
  }
  return references;
}

void References::add(const Head& head) {
  for (const Head::Layer& layer : head.layers) {
    files.insert(layer_name(layer.disk, layer.id));
    files.insert(layer_log_name(layer.disk, layer.id));
  }
}

base::Result<void> settle_names(Storage& storage) {
  TRY(storage.sync_directory("snap"));
  return storage.sync_directory("heads");
}

base::Result<Garbage> remove_unnamed(Store& store, const References& references, bool settled,
                                     const std::set<std::string>& committed) {
  Storage& storage = store.storage();
  Remover remover(storage, settled);
  auto stays = [&](const std::string&, const std::string& path, const Id& id) {
    return references.files.contains(path) ||
           (references.living.contains(id.high) && !committed.contains(path));
  };
  // A manifest that was never committed, or a HEAD: "<branch>-<id>".
  auto lives = [&](const std::string& name, const std::string&, const Id&) {
    const auto branch = Id::parse(std::string_view(name).substr(0, name.find('-')));
    return branch && references.living.contains(branch->high);
  };
  TRY(remover.clean("tmp", lives));
  for (const char* directory : {"runs", "packs", "layers"}) TRY(remover.clean(directory, stays));
  for (const Id& branch : references.abandoned) {
    TRY(unless_gone(storage.remove(branch_lock_name(branch))));
  }
  return remover.garbage();
}

base::Result<Garbage> recover_store(Store& store) {
  TRY_ASSIGN(auto lock, store.lock(File::Lock::kExclusive));
  TRY_ASSIGN(const References references, References::collect(store));
  return remove_unnamed(store, references, false);
}

base::Result<bool> try_recover_store(Store& store) {
  TRY_ASSIGN(auto lock, store.try_lock(File::Lock::kExclusive));
  if (!lock) return false;
  TRY_ASSIGN(const References references, References::collect(store));
  TRY(remove_unnamed(store, references, false));
  return true;
}

}  // namespace snapshot
