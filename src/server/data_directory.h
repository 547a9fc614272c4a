// The data directory: who owns it, that one server uses it at a time, and where its parts are.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::server {

struct ServerIdentity {
  std::uint32_t uid = 0, gid = 0;  // whom the server becomes
};

// `setting` is a user's name or uid; "" picks the user `mayfly` if there is one, else uid and gid 64900. When not root,
// the caller's own ids whatever the setting says.
[[nodiscard]] base::Result<ServerIdentity> server_identity(const std::string& setting);

// Holds the lock for the life of the object. A lock of a server that died is free at once (flock).
class DataDirectory {
 public:
  // Makes the directory and its parts, gives them to `owner` (root only), takes the lock. kAlreadyExists names the pid of the
  // server that holds it; kPermissionDenied when the directory is somebody else's. Follows no link inside.
  [[nodiscard]] static base::Result<DataDirectory> open(const std::string& path, ServerIdentity owner);

  [[nodiscard]] const std::string& path() const { return path_; }          // absolute
  [[nodiscard]] const std::string& instance() const { return instance_; }  // 8 hex digits made from the path
  // After drop_privileges(): the same directory under the path the server can walk.
  void moved_to(std::string path) { path_ = std::move(path); }

  [[nodiscard]] std::string code() const { return path_ + "/code"; }          // unpacked packages
  [[nodiscard]] std::string blobs() const { return path_ + "/blobs"; }        // packages as uploaded
  [[nodiscard]] std::string scratch() const { return path_ + "/scratch"; }    // /tmp images
  [[nodiscard]] std::string runtimes() const { return path_ + "/runtimes"; }  // bootstraps
  [[nodiscard]] std::string objects() const { return path_ + "/objects"; }    // bytes of S3 objects
  [[nodiscard]] std::string logs() const { return path_ + "/logs"; }

  // Writes the bootstraps carried in the program, replacing those of another version. As the server's own uid, not as root.
  [[nodiscard]] base::Result<void> write_runtimes() const;
  // server.json: how clients on this machine find the server. Removed at the end.
  [[nodiscard]] base::Result<void> write_server_json(const std::string& json) const;
  void remove_server_json() const;

 private:
  DataDirectory(std::string path, std::string instance, base::UniqueFd lock);
  std::string path_;
  std::string instance_;
  base::UniqueFd lock_;
};

}  // namespace mayfly::server
