// Objects: named bytes in buckets, as an S3 service keeps them. Rows in one SQLite file (one connection, synchronous=FULL),
// bytes in files beside it.
// Shape:   an object is a row and a list of pieces; a piece is an immutable file, which copies share. Bytes are synced and renamed
//          into place before a row names them, and removed after no row does: a crash leaves at most files that nobody names.
// Units:   times are UTC milliseconds; `document` is JSON text of the owner's making, opaque here.
// Errors:  kNotFound, kAlreadyExists and kConflict as said below; kResourceExhausted when the disk is full (less than kReserveBytes
//          are free), which leaves everything as it was: objects and uploads can still be removed; kUnavailable after a failed write or
//          sync of the index; kDataLoss for bytes that are not as the row says.
// Threads: any thread may call; everything blocks. Rows are under one lock, bytes are not.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::store {

struct BucketRow {
  std::string name;
  std::int64_t created_ms = 0;
  std::string document = {};
};
struct ObjectRow {
  std::string bucket = {}, key = {};
  std::uint64_t size = 0;
  std::string etag = {};
  std::int64_t modified_ms = 0;
  std::string document = {};  // empty in lists
};
struct UploadRow {
  std::string id, bucket, key;
  std::int64_t created_ms = 0;
  std::string document = {};
};
struct PartRow {
  int number = 0;
  std::uint64_t size = 0;
  std::string etag = {};
  std::int64_t modified_ms = 0;
  std::string document = {};
};

struct ListQuery {
  std::string prefix = {};
  std::string delimiter = {};  // empty: none
  std::string after = {};      // names after this one; a common prefix leaves out all that begins with it
  std::size_t max = 1000;      // objects and prefixes together
};
struct ListPage {
  std::vector<ObjectRow> objects = {};
  std::vector<std::string> prefixes = {};
  bool truncated = false;
  std::string next = {};  // the `after` of the next page
};

struct UploadsQuery {
  std::string prefix = {};
  std::string after_key = {};  // with an empty `after_id`: uploads of later keys; else also later ids of this key
  std::string after_id = {};
  std::size_t max = 1000;  // fewer when their documents are large
};
struct UploadsPage {
  std::vector<UploadRow> uploads = {};
  bool truncated = false;
};

// What completing an upload makes of its parts.
struct Assembly {
  ObjectRow object;  // bucket, key and size are filled in
  std::vector<int> parts = {};
};

class ObjectFiles;

// Tells how many bytes of the disk are free.
using FreeBytes = std::function<base::Result<std::uint64_t>()>;

// Bytes on their way in. Nobody sees them until a put names them; gone with this object if none does. One thread at a time.
// Made by begin_file(), which promised it the first of `expected` bytes.
class IncomingFile {
 public:
  IncomingFile(std::shared_ptr<ObjectFiles> files, std::string name, base::UniqueFd fd, std::uint64_t expected);
  ~IncomingFile();
  IncomingFile(const IncomingFile&) = delete;
  IncomingFile& operator=(const IncomingFile&) = delete;
  // kResourceExhausted when the disk has become too full meanwhile.
  [[nodiscard]] base::Result<void> append(std::string_view bytes);
  [[nodiscard]] std::uint64_t size() const { return size_; }
  // Syncs the bytes and gives them their name.
  [[nodiscard]] base::Result<void> seal();
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  base::Result<void> promise(std::uint64_t bytes);

  const std::shared_ptr<ObjectFiles> files_;
  const std::string name_;
  base::UniqueFd fd_;
  std::uint64_t expected_;  // still to come
  std::uint64_t promised_;  // of the disk
  std::uint64_t size_ = 0, flushed_ = 0;
  bool sealed_ = false;
};

// An object as it was when it was opened: stays readable when it is replaced or deleted meanwhile. One thread at a time.
class ObjectReader {
 public:
  struct Piece {
    std::string file;
    std::uint64_t size = 0;
    bool operator==(const Piece&) const = default;
  };
  ObjectReader(std::shared_ptr<ObjectFiles> files, ObjectRow row, std::vector<Piece> pieces);
  ~ObjectReader();
  ObjectReader(const ObjectReader&) = delete;
  ObjectReader& operator=(const ObjectReader&) = delete;
  [[nodiscard]] const ObjectRow& row() const { return row_; }
  [[nodiscard]] const std::vector<Piece>& pieces() const { return pieces_; }
  // Up to `length` bytes from `offset`; fewer at the end of a piece, none at the end of the object.
  [[nodiscard]] base::Result<std::string> read(std::uint64_t offset, std::size_t length);

 private:
  const std::shared_ptr<ObjectFiles> files_;
  const ObjectRow row_;
  const std::vector<Piece> pieces_;
  base::UniqueFd fd_;  // of pieces_[open_]
  std::size_t open_ = 0;
};

class Objects {
 public:
  // Looks at what is there (null: nothing) before it is replaced, in the same transaction; an error leaves it.
  using Check = std::function<base::Result<void>(const ObjectRow* present)>;

  virtual ~Objects() = default;

  [[nodiscard]] virtual base::Result<void> create_bucket(const BucketRow& bucket) = 0;  // kAlreadyExists
  [[nodiscard]] virtual base::Result<std::vector<BucketRow>> buckets() = 0;             // in order of name
  [[nodiscard]] virtual base::Result<std::optional<BucketRow>> find_bucket(const std::string& name) = 0;
  [[nodiscard]] virtual base::Result<void> set_bucket_document(const std::string& name, const std::string& document) = 0;  // kNotFound
  // With its unfinished uploads. kNotFound; kConflict when it has objects.
  [[nodiscard]] virtual base::Result<void> remove_bucket(const std::string& name) = 0;

  // Takes bytes in. kResourceExhausted when the disk would be left with less than kReserveBytes after `expected` more; kPromiseBytes of
  // them are kept free for it while it is written.
  [[nodiscard]] virtual base::Result<std::unique_ptr<IncomingFile>> begin_file(std::uint64_t expected) = 0;
  // Replaces an object by one of `file`'s bytes, which it seals. kNotFound: no such bucket.
  [[nodiscard]] virtual base::Result<void> put_object(const ObjectRow& object, IncomingFile& file, const Check& check) = 0;
  // Replaces an object by one that shares the bytes of `source`, as opened. kNotFound: no such bucket; kConflict: the source has
  // other bytes than when it was opened, be they equal.
  [[nodiscard]] virtual base::Result<void> put_shared(const ObjectRow& object, const ObjectReader& source, const Check& check) = 0;
  [[nodiscard]] virtual base::Result<std::optional<ObjectRow>> find_object(const std::string& bucket, const std::string& key) = 0;
  [[nodiscard]] virtual base::Result<std::unique_ptr<ObjectReader>> open_object(const std::string& bucket,
                                                                                const std::string& key) = 0;  // kNotFound
  // Changes the document of an object in one transaction. kNotFound.
  [[nodiscard]] virtual base::Result<void> change_document(const std::string& bucket, const std::string& key,
                                                           const std::function<base::Result<std::string>(const ObjectRow&)>& change) = 0;
  // All of them in one transaction; those that are not there are fine.
  [[nodiscard]] virtual base::Result<void> remove_objects(const std::string& bucket, const std::vector<std::string>& keys) = 0;
  [[nodiscard]] virtual base::Result<ListPage> list(const std::string& bucket, const ListQuery& query) = 0;

  [[nodiscard]] virtual base::Result<void> create_upload(const UploadRow& upload) = 0;  // kNotFound: no such bucket
  [[nodiscard]] virtual base::Result<std::optional<UploadRow>> find_upload(const std::string& id) = 0;
  [[nodiscard]] virtual base::Result<UploadsPage> uploads(const std::string& bucket, const UploadsQuery& query) = 0;
  // Replaces a part. kNotFound: no such upload.
  [[nodiscard]] virtual base::Result<void> put_part(const std::string& upload, const PartRow& part, IncomingFile& file) = 0;
  [[nodiscard]] virtual base::Result<std::vector<PartRow>> parts(const std::string& upload) = 0;  // in order of number
  // Makes the object that `assemble` says of the parts it names, and ends the upload; the other parts go. kNotFound.
  [[nodiscard]] virtual base::Result<ObjectRow> complete_upload(
      const std::string& id, const std::function<base::Result<Assembly>(const UploadRow&, const std::vector<PartRow>&)>& assemble,
      const Check& check) = 0;
  [[nodiscard]] virtual base::Result<void> abort_upload(const std::string& id) = 0;  // kNotFound

  // Removes files that no row names. Safe while the store is used; for once after the start and whenever there is time.
  [[nodiscard]] virtual base::Result<std::size_t> sweep() = 0;
  [[nodiscard]] virtual base::Result<void> check() = 0;

  // What objects, their parts and the rows of both leave free of the disk, for the catalogue and the logs.
  static constexpr std::uint64_t kReserveBytes = 128ULL << 20U;
  static constexpr std::uint64_t kPromiseBytes = 64ULL << 20U;
};

// Opens or creates the index `database` and the directory of bytes; half-written files of a former run are removed. kDataLoss when
// the file is damaged, kUnsupported when it was written by a newer Mayfly. `free_bytes` is asked in place of the disk, for tests.
[[nodiscard]] base::Result<std::unique_ptr<Objects>> open_objects(const std::string& database, const std::string& directory,
                                                                  FreeBytes free_bytes = {});

}  // namespace mayfly::store
