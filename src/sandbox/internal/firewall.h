// The nftables table of one instance: what packets of its sandboxes may do. Used by NetworkBuilder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

struct Ipv4Range {
  std::uint32_t address = 0;  // host byte order, host bits zero
  unsigned prefix = 32;
  [[nodiscard]] std::string to_string() const;
};
// "a.b.c.d" or "a.b.c.d/n"; host bits must be zero.
[[nodiscard]] base::Result<Ipv4Range> parse_ipv4_range(std::string_view text);
// Whether `text` is an IPv6 address or CIDR.
[[nodiscard]] bool is_ipv6_range(std::string_view text);
[[nodiscard]] std::string ipv4_text(std::uint32_t address);

struct FirewallOptions {
  std::string table;              // "mayfly_0123abcd"
  std::string device_prefix;      // "mf0123abcd": devices so named lead to sandboxes
  std::vector<Ipv4Range> denied;  // besides what is always denied
};

// The rules as nft reads them; replaces the table whole if it exists.
[[nodiscard]] std::string firewall_rules(const FirewallOptions& options);

// Where `nft` is, empty when it is nowhere.
[[nodiscard]] std::string find_nft();
// Runs nft with `arguments` and `input` on its standard input, in the mount namespace behind `mount_namespace`, at most 10 s.
// The value is its standard output.
[[nodiscard]] base::Result<std::string> run_nft(const std::string& nft, const std::vector<std::string>& arguments, std::string_view input,
                                                const base::UniqueFd& mount_namespace);
// Whether table `inet <table>` is there. About 10 us.
[[nodiscard]] base::Result<bool> table_exists(const std::string& table);
// Deletes table `inet <table>` without starting a program; an absent one is fine.
[[nodiscard]] base::Result<void> delete_table(const std::string& table);
// The chains on the forward path, in `nft list chains` output, that drop what no rule of theirs accepts ("ip filter FORWARD").
[[nodiscard]] std::vector<std::string> dropping_forward_chains(std::string_view list_chains_output);

}  // namespace mayfly::sandbox::internal
