#include "store/objects.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mutex.h"
#include "store/internal/object_files.h"
#include "store/internal/sqlite.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;

constexpr std::int32_t kApplicationId = 0x4D464F42;  // "MFOB"

constexpr std::size_t kUploadsPageBytes = 2U << 20U;  // of documents, after which a page ends

// docs/formats/objects.md. Never edit one that was released; add the next.
constexpr std::array kMigrations = {Migration{1, R"sql(
CREATE TABLE buckets(
  name TEXT PRIMARY KEY,
  created_ms INTEGER NOT NULL,
  document TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE objects(
  id INTEGER PRIMARY KEY,
  bucket TEXT NOT NULL REFERENCES buckets(name),
  key TEXT NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified_ms INTEGER NOT NULL,
  document TEXT NOT NULL,
  UNIQUE(bucket, key)
);
CREATE TABLE pieces(
  object INTEGER NOT NULL REFERENCES objects(id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  file TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY(object, number)
) WITHOUT ROWID;
CREATE INDEX pieces_by_file ON pieces(file);
CREATE TABLE uploads(
  id TEXT PRIMARY KEY,
  bucket TEXT NOT NULL REFERENCES buckets(name) ON DELETE CASCADE,
  key TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  document TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_key ON uploads(bucket, key, id);
CREATE TABLE parts(
  upload TEXT NOT NULL REFERENCES uploads(id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  file TEXT NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified_ms INTEGER NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY(upload, number)
) WITHOUT ROWID;
CREATE INDEX parts_by_file ON parts(file);
)sql"}};

struct Statements {
  Statement add_bucket, buckets, find_bucket, set_bucket, remove_bucket, any_object, bucket_files;
  Statement find_object, add_object, remove_object, set_document, add_piece, pieces, list;
  Statement add_upload, find_upload, uploads, remove_upload, add_part, parts, find_part, remove_part;
  Statement is_named, named_from, last_id, check;
};

Result<Statements> prepare_statements(Database& database) {
  Statements all;
  const std::pair<Statement*, const char*> wanted[] = {
      {&all.add_bucket, "INSERT INTO buckets(name, created_ms, document) VALUES(?, ?, ?) ON CONFLICT(name) DO NOTHING RETURNING 1"},
      {&all.buckets, "SELECT name, created_ms, document FROM buckets ORDER BY name"},
      {&all.find_bucket, "SELECT name, created_ms, document FROM buckets WHERE name=?"},
      {&all.set_bucket, "UPDATE buckets SET document=? WHERE name=? RETURNING 1"},
      {&all.remove_bucket, "DELETE FROM buckets WHERE name=?"},
      {&all.any_object, "SELECT 1 FROM objects WHERE bucket=? LIMIT 1"},
      {&all.bucket_files, "SELECT file FROM parts JOIN uploads ON parts.upload=uploads.id WHERE uploads.bucket=?"},
      {&all.find_object, "SELECT id, size, etag, modified_ms, document FROM objects WHERE bucket=? AND key=?"},
      {&all.add_object, "INSERT INTO objects(bucket, key, size, etag, modified_ms, document) VALUES(?, ?, ?, ?, ?, ?)"},
      {&all.remove_object, "DELETE FROM objects WHERE id=?"},
      {&all.set_document, "UPDATE objects SET document=? WHERE id=?"},
      {&all.add_piece, "INSERT INTO pieces(object, number, file, size) VALUES(?, ?, ?, ?)"},
      {&all.pieces, "SELECT file, size FROM pieces WHERE object=? ORDER BY number"},
      {&all.list, "SELECT key, size, etag, modified_ms FROM objects WHERE bucket=? AND key>=? AND key<? ORDER BY key"},
      {&all.add_upload, "INSERT INTO uploads(id, bucket, key, created_ms, document) VALUES(?, ?, ?, ?, ?)"},
      {&all.find_upload, "SELECT id, bucket, key, created_ms, document FROM uploads WHERE id=?"},
      {&all.uploads,
       "SELECT id, bucket, key, created_ms, document FROM uploads WHERE bucket=?1 AND key>=?2 AND key<?3 AND (key>?4 OR (key=?4 AND "
       "id>?5)) "
       "ORDER BY key, id LIMIT ?6"},
      {&all.remove_upload, "DELETE FROM uploads WHERE id=?"},
      {&all.add_part, "INSERT INTO parts(upload, number, file, size, etag, modified_ms, document) VALUES(?, ?, ?, ?, ?, ?, ?)"},
      {&all.parts, "SELECT number, size, etag, modified_ms, document, file FROM parts WHERE upload=? ORDER BY number"},
      {&all.find_part, "SELECT file FROM parts WHERE upload=? AND number=?"},
      {&all.remove_part, "DELETE FROM parts WHERE upload=? AND number=?"},
      {&all.is_named, "SELECT EXISTS(SELECT 1 FROM pieces WHERE file=?1) OR EXISTS(SELECT 1 FROM parts WHERE file=?1)"},
      {&all.named_from, "SELECT file FROM pieces WHERE file>=?1 AND file<?2 UNION SELECT file FROM parts WHERE file>=?1 AND file<?2"},
      {&all.last_id, "SELECT last_insert_rowid()"},
      {&all.check, "SELECT count(*) FROM migrations"},
  };
  for (const auto& [statement, sql] : wanted) {
    MAYFLY_ASSIGN(*statement, database.prepare(sql));
  }
  return all;
}

// The first name after all that begin with `prefix`.
std::string end_of(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xFF') prefix.pop_back();
  if (prefix.empty()) return "\xFF";  // no key, being UTF-8, begins so
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

// What `key` is shown as: the common prefix it falls under, if it does.
std::optional<std::string> common_prefix(const std::string& key, const ListQuery& query) {
  if (query.delimiter.empty() || !key.starts_with(query.prefix)) return std::nullopt;
  const std::size_t found = key.find(query.delimiter, query.prefix.size());
  if (found == std::string::npos) return std::nullopt;
  return key.substr(0, found + query.delimiter.size());
}

BucketRow bucket_in(const Statement& row) { return {.name = row.text(0), .created_ms = row.number(1), .document = row.text(2)}; }
UploadRow upload_in(const Statement& row) {
  return {.id = row.text(0), .bucket = row.text(1), .key = row.text(2), .created_ms = row.number(3), .document = row.text(4)};
}

struct StoredObject {
  std::int64_t id = 0;
  ObjectRow row;
};
struct StoredPart {
  PartRow row;
  std::string file;
};

class SqliteObjects final : public Objects {
 public:
  SqliteObjects(std::unique_ptr<Database> database, Statements statements, std::shared_ptr<ObjectFiles> files)
      : database_(std::move(database)), statements_(std::move(statements)), files_(std::move(files)) {}
  ~SqliteObjects() override { files_->collect(); }

  Result<void> create_bucket(const BucketRow& bucket) override {
    const MutexLock lock(mutex_);
    return database_->transaction([&]() -> Result<void> {
      auto& add = statements_.add_bucket.bind(1, bucket.name).bind(2, bucket.created_ms).bind(3, bucket.document);
      MAYFLY_ASSIGN(const bool added, add.step());
      add.reset();
      if (!added) return Error(ErrorCode::kAlreadyExists, "the bucket is there already");
      return {};
    });
  }

  Result<std::vector<BucketRow>> buckets() override {
    const MutexLock lock(mutex_);
    std::vector<BucketRow> found;
    while (true) {
      MAYFLY_ASSIGN(const bool row, statements_.buckets.step());
      if (!row) return found;
      found.push_back(bucket_in(statements_.buckets));
    }
  }

  Result<std::optional<BucketRow>> find_bucket(const std::string& name) override {
    const MutexLock lock(mutex_);
    return bucket_named(name);
  }

  Result<void> set_bucket_document(const std::string& name, const std::string& document) override {
    const MutexLock lock(mutex_);
    return database_->transaction([&]() -> Result<void> {
      auto& set = statements_.set_bucket.bind(1, document).bind(2, name);
      MAYFLY_ASSIGN(const bool there, set.step());
      set.reset();
      return there ? Result<void>() : no_bucket();
    });
  }

  Result<void> remove_bucket(const std::string& name) override {
    std::vector<std::string> files;
    return change(files, [&]() -> Result<void> {
      MAYFLY_TRY(must_have_bucket(name));
      auto& any = statements_.any_object.bind(1, name);
      MAYFLY_ASSIGN(const bool full, any.step());
      any.reset();
      if (full) return Error(ErrorCode::kConflict, "the bucket has objects");
      auto& parts = statements_.bucket_files.bind(1, name);
      while (true) {
        MAYFLY_ASSIGN(const bool row, parts.step());
        if (!row) break;
        files.push_back(parts.text(0));
      }
      return statements_.remove_bucket.bind(1, name).run();
    });
  }

  Result<std::unique_ptr<IncomingFile>> begin_file(std::uint64_t expected) override {
    const std::uint64_t promised = std::min(expected, kPromiseBytes);
    MAYFLY_TRY(files_->promise(promised, expected));
    std::string name = base::random_hex(16);
    auto fd = base::open_file(files_->incoming_path(name), O_WRONLY | O_CREAT | O_EXCL);
    if (!fd.ok()) {
      files_->fulfil(promised);
      return std::move(fd).error();
    }
    return std::make_unique<IncomingFile>(files_, std::move(name), *std::move(fd), expected);
  }

  Result<void> put_object(const ObjectRow& object, IncomingFile& file, const Check& check) override {
    MAYFLY_TRY(files_->check_room());
    MAYFLY_TRY(file.seal());
    std::vector<std::string> files;
    const std::vector<ObjectReader::Piece> pieces = {{.file = file.name(), .size = file.size()}};
    Result<void> done = change(files, [&] { return replace(object, pieces, check, files); });
    if (!done.ok()) drop_unnamed(file);
    return done;
  }

  Result<void> put_shared(const ObjectRow& object, const ObjectReader& source, const Check& check) override {
    MAYFLY_TRY(files_->check_room());
    std::vector<std::string> files;
    return change(files, [&]() -> Result<void> {
      MAYFLY_ASSIGN(const auto present, object_at(source.row().bucket, source.row().key));
      // An equal object that was put meanwhile has files of its own, and those of the source are on their way out.
      std::vector<ObjectReader::Piece> pieces;
      if (present) {
        MAYFLY_ASSIGN(pieces, pieces_of(present->id));
      }
      if (!present || pieces != source.pieces()) return Error(ErrorCode::kConflict, "the source of the copy changed meanwhile");
      return replace(object, source.pieces(), check, files);
    });
  }

  Result<std::optional<ObjectRow>> find_object(const std::string& bucket, const std::string& key) override {
    const MutexLock lock(mutex_);
    MAYFLY_ASSIGN(auto found, object_at(bucket, key));
    if (!found) return std::optional<ObjectRow>();
    return std::optional<ObjectRow>(std::move(found->row));
  }

  Result<std::unique_ptr<ObjectReader>> open_object(const std::string& bucket, const std::string& key) override {
    const MutexLock lock(mutex_);
    MAYFLY_ASSIGN(auto found, object_at(bucket, key));
    if (!found) return no_object();
    MAYFLY_ASSIGN(auto pieces, pieces_of(found->id));
    return std::make_unique<ObjectReader>(files_, std::move(found->row), std::move(pieces));
  }

  Result<void> change_document(const std::string& bucket, const std::string& key,
                               const std::function<Result<std::string>(const ObjectRow&)>& change_to) override {
    MAYFLY_TRY(files_->check_room());
    const MutexLock lock(mutex_);
    return database_->transaction([&]() -> Result<void> {
      MAYFLY_ASSIGN(const auto found, object_at(bucket, key));
      if (!found) return no_object();
      MAYFLY_ASSIGN(const std::string document, change_to(found->row));
      return statements_.set_document.bind(1, document).bind(2, found->id).run();
    });
  }

  Result<void> remove_objects(const std::string& bucket, const std::vector<std::string>& keys) override {
    std::vector<std::string> files;
    return change(files, [&]() -> Result<void> {
      for (const std::string& key : keys) {
        MAYFLY_ASSIGN(const auto found, object_at(bucket, key));
        if (found) MAYFLY_TRY(remove(found->id, files));
      }
      return {};
    });
  }

  Result<ListPage> list(const std::string& bucket, const ListQuery& query) override {
    const MutexLock lock(mutex_);
    ListPage page;
    std::string from = query.prefix;
    if (!query.after.empty()) {
      const auto group = common_prefix(query.after, query);
      from = std::max(from, group == query.after ? end_of(query.after) : query.after + '\0');
    }
    const std::string to = end_of(query.prefix);
    Statement& rows = statements_.list;
    const auto seek = [&] {
      rows.reset();
      rows.bind(1, bucket).bind(2, from).bind(3, to);
    };
    seek();
    while (query.max > 0) {
      MAYFLY_ASSIGN(const bool row, rows.step());
      if (!row) break;
      if (page.objects.size() + page.prefixes.size() == query.max) {
        page.truncated = true;
        break;
      }
      std::string key = rows.text(0);
      if (auto group = common_prefix(key, query)) {
        page.next = *group;
        from = end_of(*group);
        page.prefixes.push_back(*std::move(group));
        seek();
        continue;
      }
      page.next = key;
      page.objects.push_back({.bucket = bucket,
                              .key = std::move(key),
                              .size = static_cast<std::uint64_t>(rows.number(1)),
                              .etag = rows.text(2),
                              .modified_ms = rows.number(3)});
    }
    rows.reset();
    return page;
  }

  Result<void> create_upload(const UploadRow& upload) override {
    MAYFLY_TRY(files_->check_room());
    const MutexLock lock(mutex_);
    return database_->transaction([&]() -> Result<void> {
      MAYFLY_TRY(must_have_bucket(upload.bucket));
      return statements_.add_upload.bind(1, upload.id)
          .bind(2, upload.bucket)
          .bind(3, upload.key)
          .bind(4, upload.created_ms)
          .bind(5, upload.document)
          .run();
    });
  }

  Result<std::optional<UploadRow>> find_upload(const std::string& id) override {
    const MutexLock lock(mutex_);
    return upload_named(id);
  }

  Result<UploadsPage> uploads(const std::string& bucket, const UploadsQuery& query) override {
    const MutexLock lock(mutex_);
    UploadsPage page;
    std::size_t bytes = 0;
    // Without an id the whole of `after_key` is behind: no id comes after this one.
    const std::string after_id = query.after_id.empty() && !query.after_key.empty() ? "\xFF" : query.after_id;
    Statement& rows = statements_.uploads.bind(1, bucket)
                          .bind(2, query.prefix)
                          .bind(3, end_of(query.prefix))
                          .bind(4, query.after_key)
                          .bind(5, after_id)
                          .bind(6, static_cast<std::int64_t>(query.max) + 1);
    while (true) {
      MAYFLY_ASSIGN(const bool row, rows.step());
      if (!row) break;
      page.truncated = page.uploads.size() == query.max || bytes >= kUploadsPageBytes;
      if (page.truncated) break;
      page.uploads.push_back(upload_in(rows));
      bytes += page.uploads.back().document.size();
    }
    rows.reset();
    return page;
  }

  Result<void> put_part(const std::string& upload, const PartRow& part, IncomingFile& file) override {
    MAYFLY_TRY(files_->check_room());
    MAYFLY_TRY(file.seal());
    std::vector<std::string> files;
    Result<void> done = change(files, [&]() -> Result<void> {
      MAYFLY_ASSIGN(const auto there, upload_named(upload));
      if (!there) return no_upload();
      auto& find = statements_.find_part.bind(1, upload).bind(2, static_cast<std::int64_t>(part.number));
      MAYFLY_ASSIGN(const bool replaced, find.step());
      if (replaced) files.push_back(find.text(0));
      find.reset();
      MAYFLY_TRY(statements_.remove_part.bind(1, upload).bind(2, static_cast<std::int64_t>(part.number)).run());
      return statements_.add_part.bind(1, upload)
          .bind(2, static_cast<std::int64_t>(part.number))
          .bind(3, file.name())
          .bind(4, static_cast<std::int64_t>(file.size()))
          .bind(5, part.etag)
          .bind(6, part.modified_ms)
          .bind(7, part.document)
          .run();
    });
    if (!done.ok()) drop_unnamed(file);
    return done;
  }

  Result<std::vector<PartRow>> parts(const std::string& upload) override {
    const MutexLock lock(mutex_);
    MAYFLY_ASSIGN(auto stored, parts_of(upload));
    std::vector<PartRow> found;
    found.reserve(stored.size());
    for (StoredPart& part : stored) found.push_back(std::move(part.row));
    return found;
  }

  Result<ObjectRow> complete_upload(const std::string& id,
                                    const std::function<Result<Assembly>(const UploadRow&, const std::vector<PartRow>&)>& assemble,
                                    const Check& check) override {
    MAYFLY_TRY(files_->check_room());
    std::vector<std::string> files;
    ObjectRow made;
    MAYFLY_TRY(change(files, [&]() -> Result<void> {
      MAYFLY_ASSIGN(const auto upload, upload_named(id));
      if (!upload) return no_upload();
      MAYFLY_ASSIGN(const auto stored, parts_of(id));
      std::vector<PartRow> rows;
      rows.reserve(stored.size());
      for (const StoredPart& part : stored) rows.push_back(part.row);
      MAYFLY_ASSIGN(Assembly assembly, assemble(*upload, rows));
      std::vector<ObjectReader::Piece> pieces;
      made = std::move(assembly.object);
      made.bucket = upload->bucket;
      made.key = upload->key;
      made.size = 0;
      for (const int number : assembly.parts) {
        const auto part = std::ranges::lower_bound(stored, number, {}, [](const StoredPart& each) { return each.row.number; });
        if (part == stored.end() || part->row.number != number)
          return Error(ErrorCode::kInternal, "an upload was to be made of a part it does not have");
        pieces.push_back({.file = part->file, .size = part->row.size});
        made.size += part->row.size;
      }
      for (const StoredPart& part : stored) files.push_back(part.file);  // those the object keeps are named still
      MAYFLY_TRY(statements_.remove_upload.bind(1, id).run());
      return replace(made, pieces, check, files);
    }));
    return made;
  }

  Result<void> abort_upload(const std::string& id) override {
    std::vector<std::string> files;
    return change(files, [&]() -> Result<void> {
      MAYFLY_ASSIGN(const auto upload, upload_named(id));
      if (!upload) return no_upload();
      MAYFLY_ASSIGN(const auto stored, parts_of(id));
      for (const StoredPart& part : stored) files.push_back(part.file);
      return statements_.remove_upload.bind(1, id).run();
    });
  }

  Result<std::size_t> sweep() override {
    std::size_t removed = 0;
    MAYFLY_TRY(files_->for_each_folder([&](const std::string& folder, std::vector<std::string> names) -> Result<void> {
      // Names were read before rows are, so a file that was named since then is among the rows; one that is being written is held.
      const MutexLock lock(mutex_);
      MAYFLY_TRY(database_->healthy());  // else rows on the disk may not be those seen here
      std::unordered_set<std::string> named;
      auto& rows = statements_.named_from.bind(1, folder).bind(2, end_of(folder));
      while (true) {
        MAYFLY_ASSIGN(const bool row, rows.step());
        if (!row) break;
        named.insert(rows.text(0));
      }
      for (const std::string& name : names) {
        if (named.contains(name) || files_->is_held(name)) continue;
        files_->drop(name);
        ++removed;
      }
      return {};
    }));
    files_->collect();
    return removed;
  }

  Result<void> check() override {
    const MutexLock lock(mutex_);
    MAYFLY_TRY(database_->healthy());
    return statements_.check.run();
  }

 private:
  static Error no_bucket() { return Error(ErrorCode::kNotFound, "there is no such bucket"); }
  static Error no_object() { return Error(ErrorCode::kNotFound, "there is no such object"); }
  static Error no_upload() { return Error(ErrorCode::kNotFound, "there is no such upload"); }

  // After a failed sync nobody knows whether the row is on the disk: the file stays for the sweep of the next run to judge.
  void drop_unnamed(const IncomingFile& file) {
    const MutexLock lock(mutex_);
    if (database_->healthy().ok()) files_->drop(file.name());
  }

  // A transaction that may take the last name of `files`: those without one are removed after it.
  Result<void> change(std::vector<std::string>& files, const std::function<Result<void>()>& work) {
    {
      const MutexLock lock(mutex_);
      MAYFLY_TRY(database_->transaction(work));
      for (const std::string& file : files) {
        auto& named = statements_.is_named.bind(1, file);
        const auto row = named.step();
        const bool unnamed = row.ok() && *row && named.number(0) == 0;  // in doubt the next sweep decides
        named.reset();
        if (unnamed) files_->drop(file);
      }
    }
    files_->collect();
    return {};
  }

  Result<std::optional<BucketRow>> bucket_named(const std::string& name) {
    auto& find = statements_.find_bucket.bind(1, name);
    MAYFLY_ASSIGN(const bool row, find.step());
    std::optional<BucketRow> found;
    if (row) found = bucket_in(find);
    find.reset();
    return found;
  }
  Result<void> must_have_bucket(const std::string& name) {
    auto& find = statements_.find_bucket.bind(1, name);
    MAYFLY_ASSIGN(const bool row, find.step());
    find.reset();
    return row ? Result<void>() : no_bucket();
  }
  Result<std::optional<UploadRow>> upload_named(const std::string& id) {
    auto& find = statements_.find_upload.bind(1, id);
    MAYFLY_ASSIGN(const bool row, find.step());
    std::optional<UploadRow> found;
    if (row) found = upload_in(find);
    find.reset();
    return found;
  }
  Result<std::optional<StoredObject>> object_at(const std::string& bucket, const std::string& key) {
    auto& find = statements_.find_object.bind(1, bucket).bind(2, key);
    MAYFLY_ASSIGN(const bool row, find.step());
    std::optional<StoredObject> found;
    if (row) {
      found = StoredObject{.id = find.number(0),
                           .row = {.bucket = bucket,
                                   .key = key,
                                   .size = static_cast<std::uint64_t>(find.number(1)),
                                   .etag = find.text(2),
                                   .modified_ms = find.number(3),
                                   .document = find.text(4)}};
    }
    find.reset();
    return found;
  }
  Result<std::vector<ObjectReader::Piece>> pieces_of(std::int64_t object) {
    std::vector<ObjectReader::Piece> pieces;
    auto& rows = statements_.pieces.bind(1, object);
    while (true) {
      MAYFLY_ASSIGN(const bool row, rows.step());
      if (!row) return pieces;
      pieces.push_back({.file = rows.text(0), .size = static_cast<std::uint64_t>(rows.number(1))});
    }
  }
  Result<std::vector<StoredPart>> parts_of(const std::string& upload) {
    std::vector<StoredPart> parts;
    auto& rows = statements_.parts.bind(1, upload);
    while (true) {
      MAYFLY_ASSIGN(const bool row, rows.step());
      if (!row) return parts;
      parts.push_back({.row = {.number = static_cast<int>(rows.number(0)),
                               .size = static_cast<std::uint64_t>(rows.number(1)),
                               .etag = rows.text(2),
                               .modified_ms = rows.number(3),
                               .document = rows.text(4)},
                       .file = rows.text(5)});
    }
  }

  Result<void> remove(std::int64_t object, std::vector<std::string>& files) {
    MAYFLY_ASSIGN(const auto pieces, pieces_of(object));
    for (const auto& piece : pieces) files.push_back(piece.file);
    return statements_.remove_object.bind(1, object).run();
  }

  Result<void> replace(const ObjectRow& object, const std::vector<ObjectReader::Piece>& pieces, const Check& check,
                       std::vector<std::string>& files) {
    MAYFLY_TRY(must_have_bucket(object.bucket));
    MAYFLY_ASSIGN(const auto present, object_at(object.bucket, object.key));
    if (check) MAYFLY_TRY(check(present ? &present->row : nullptr));
    if (present) MAYFLY_TRY(remove(present->id, files));
    MAYFLY_TRY(statements_.add_object.bind(1, object.bucket)
                   .bind(2, object.key)
                   .bind(3, static_cast<std::int64_t>(object.size))
                   .bind(4, object.etag)
                   .bind(5, object.modified_ms)
                   .bind(6, object.document)
                   .run());
    auto& last = statements_.last_id;
    MAYFLY_ASSIGN(const bool row, last.step());
    const std::int64_t id = row ? last.number(0) : 0;
    last.reset();
    std::int64_t number = 0;
    for (const auto& piece : pieces) {
      MAYFLY_TRY(
          statements_.add_piece.bind(1, id).bind(2, ++number).bind(3, piece.file).bind(4, static_cast<std::int64_t>(piece.size)).run());
    }
    return {};
  }

  base::Mutex mutex_;
  std::unique_ptr<Database> database_;
  Statements statements_;  // go before the database
  const std::shared_ptr<ObjectFiles> files_;
};

}  // namespace

Result<std::unique_ptr<Objects>> open_objects(const std::string& database, const std::string& directory, FreeBytes free_bytes) {
  auto files = std::make_shared<ObjectFiles>(directory, std::move(free_bytes));
  MAYFLY_TRY(files->prepare().with_context("the bytes of objects"));
  MAYFLY_ASSIGN(std::unique_ptr<Database> opened, Database::open(database, kApplicationId));
  MAYFLY_TRY(opened->migrate(kMigrations));
  MAYFLY_ASSIGN(Statements statements, prepare_statements(*opened));
  return std::unique_ptr<Objects>(std::make_unique<SqliteObjects>(std::move(opened), std::move(statements), std::move(files)));
}

}  // namespace mayfly::store
