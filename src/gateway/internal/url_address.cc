#include "gateway/internal/url_address.h"

#include <algorithm>

#include "base/bytes.h"

namespace mayfly::gateway {
namespace {

constexpr std::string_view kPathPrefix = "/lambda-url/";
constexpr std::size_t kIdMax = 64;

bool is_id(std::string_view text) {
  return !text.empty() && text.size() <= kIdMax &&
         std::ranges::all_of(text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

// Signatures fold "." and ".." away (SigV4): behind an id they could sign for another function's address.
bool has_dot_segment(std::string_view path) {
  while (true) {
    const std::size_t end = path.find('/');
    const auto segment = base::percent_decode(path.substr(0, end));
    if (segment.ok() && (*segment == "." || *segment == "..")) return true;
    if (end == std::string_view::npos) return false;
    path.remove_prefix(end + 1);
  }
}

std::string host_name(const net::RequestHead& head) {
  std::string host = net::to_lower(head.headers.get("Host"));
  const std::size_t colon = host.rfind(':');
  if (colon != std::string::npos && host.find_first_not_of("0123456789", colon + 1) == std::string::npos) host.resize(colon);
  if (host.ends_with('.')) host.pop_back();
  return host;
}

}  // namespace

std::optional<UrlAddress> find_url_address(const net::RequestHead& head, const UrlRealm& realm) {
  const std::string suffix = ".lambda-url." + realm.region + "." + realm.domain;
  const std::string host = host_name(head);
  std::string path(head.path());
  if (host.ends_with(suffix)) {
    std::string id = host.substr(0, host.size() - suffix.size());
    if (!is_id(id)) return std::nullopt;
    if (!path.starts_with('/')) path = "/";
    return UrlAddress{.id = std::move(id), .path = std::move(path), .domain_name = host};
  }
  if (!path.starts_with(kPathPrefix) || has_dot_segment(path)) return std::nullopt;
  const std::size_t end = std::min(path.find('/', kPathPrefix.size()), path.size());
  std::string id = path.substr(kPathPrefix.size(), end - kPathPrefix.size());
  if (!is_id(id)) return std::nullopt;
  path.erase(0, end);
  if (path.empty()) path = "/";
  std::string domain_name = id + suffix;
  return UrlAddress{.id = std::move(id), .path = std::move(path), .domain_name = std::move(domain_name)};
}

}  // namespace mayfly::gateway
