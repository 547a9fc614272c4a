#include "engine/code_store.h"

#include <utility>

#include "base/bytes.h"
#include "base/log.h"

namespace mayfly::engine {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;

CodeStore::CodeStore(store::Blobs& blobs, CodePreparer prepare, std::function<void(const std::string& code_id)> discard)
    : blobs_(blobs), prepare_(std::move(prepare)), discard_(std::move(discard)) {}

CodeStore::Hold::Hold(CodeStore& store, const std::string& code_id) : store_(&store), code_id_(code_id) {
  const MutexLock lock(store.mutex_);
  ++store.held_[code_id_];
  was_there_ = store.blobs_.open(code_id_, false).ok();
}

CodeStore::Hold::Hold(Hold&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), code_id_(other.code_id_), was_there_(other.was_there_), kept_(other.kept_) {}

// What came to nothing goes at once; what was there before may be in use and is left to sweep().
CodeStore::Hold::~Hold() {
  if (store_ == nullptr) return;
  const MutexLock lock(store_->mutex_);
  const auto found = store_->held_.find(code_id_);
  if (--found->second > 0) return;
  store_->held_.erase(found);
  if (!kept_ && !was_there_ && !store_->named_locked().contains(code_id_)) store_->forget(code_id_);
}

CodeIdentity CodeStore::identify(std::string_view zip) {
  const base::Sha256Digest digest = base::sha256(zip);
  return {.id = base::hex_encode(digest), .sha256_base64 = base::base64_encode(base::as_text(digest)), .size = zip.size()};
}

Result<std::uint64_t> CodeStore::put(const Hold& hold, const std::string& zip) {
  PendingCode pending;
  const auto stored = blobs_.put(zip, [&](base::UniqueFd archive) { pending = prepare_(hold.code_id_, std::move(archive)); });
  // Waited for in any case: what a failure leaves must be whole, so that the hold can take it away.
  Result<std::uint64_t> prepared = pending ? pending() : Error(ErrorCode::kInternal, "a stored package could not be read");
  if (!stored.ok()) return stored.error();
  if (prepared.ok()) return prepared;
  Error error = std::move(prepared).error();  // the archive's faults get AWS's type; the platform's keep theirs
  if (error.code() == ErrorCode::kInvalidArgument && error.id().empty())
    return Error(ErrorCode::kInvalidArgument, error.message(), "InvalidParameterValueException");
  return error;
}

Result<std::uint64_t> CodeStore::unpacked_bytes(const std::string& code_id) const {
  MAYFLY_ASSIGN(base::UniqueFd archive, open(code_id));
  return prepare_(code_id, std::move(archive))();
}

Result<base::UniqueFd> CodeStore::open(const std::string& code_id) const { return blobs_.open(code_id, true); }

void CodeStore::add_owner(Owner owner) {
  const MutexLock lock(mutex_);
  owners_.push_back(std::move(owner));
}

std::set<std::string> CodeStore::named() const {
  const MutexLock lock(mutex_);
  return named_locked();
}

std::set<std::string> CodeStore::named_locked() const {
  std::set<std::string> names;
  for (const Owner& owner : owners_) owner(names);
  return names;
}

void CodeStore::forget(const std::string& code_id) {
  discard_(code_id);  // first: a crash in between leaves the blob, by which the next start finds the rest
  const Result<void> removed = blobs_.remove(code_id);
  if (!removed.ok()) base::log_warning("unused code stays on disk", {{"code", code_id}, {"cause", removed.error().message()}});
}

// Holds wait meanwhile: what is being deployed again must not be found unnamed and then be removed.
Result<std::size_t> CodeStore::sweep(const std::set<std::string>& in_use) {
  const MutexLock lock(mutex_);
  MAYFLY_ASSIGN(const std::vector<std::string> stored, blobs_.list());
  std::set<std::string> needed = in_use;
  for (const auto& [code_id, count] : held_) needed.insert(code_id);
  needed.merge(named_locked());
  std::size_t gone = 0;
  for (const std::string& code_id : stored) {
    if (needed.contains(code_id)) continue;
    forget(code_id);
    ++gone;
  }
  return gone;
}

}  // namespace mayfly::engine
