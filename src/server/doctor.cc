#include "server/doctor.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/time.h"
#include "net/http_client.h"
#include "sandbox/launcher.h"

namespace mayfly::server {
namespace {

namespace json = boost::json;

struct Check {
  std::string name;
  std::string status;  // ok, warning, failed
  std::string detail;
  std::string remedy;
};

Check check_of(const std::string& name, bool good, const std::string& detail, const std::string& otherwise, const std::string& remedy,
               bool fatal = false) {
  if (good) return {name, "ok", detail, ""};
  return {name, fatal ? "failed" : "warning", otherwise, remedy};
}

Check check_kernel() {
  utsname system{};
  uname(&system);
  int major = 0;
  int minor = 0;
  std::sscanf(system.release, "%d.%d", &major, &minor);
  return check_of("kernel", major > 5 || (major == 5 && minor >= 12), std::string("Linux ") + system.release,
                  std::string("Linux ") + system.release + " is older than 5.12",
                  "upgrade the kernel: sandboxes need mount_setattr, openat2 and clone3", true);
}

Check check_disk(const std::string& directory) {
  const std::string path = directory + "/.mayfly-doctor-" + base::random_hex(4);
  const auto fd = base::open_file(path, O_WRONLY | O_CREAT | O_EXCL);
  if (!fd.ok()) return {"disk", "failed", fd.error().message(), "choose a data directory this user can write, with --data"};
  const std::string block(512, 'x');
  std::vector<double> times;
  for (int i = 0; i < 21; ++i) {
    const auto started = base::system_clock().now();
    if (!base::write_all(fd->get(), block).ok() || fdatasync(fd->get()) != 0) break;
    times.push_back(base::to_ms(base::system_clock().now() - started));
  }
  unlink(path.c_str());
  if (times.empty()) return {"disk", "failed", "writes to " + directory + " fail", "free space or choose another data directory"};
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  char text[96];
  std::snprintf(text, sizeof text, "a durable write takes %.2f ms (median of %zu)", median, times.size());
  std::error_code ec;
  const auto space = std::filesystem::space(directory, ec);
  if (!ec && space.available < (1ULL << 30U))
    return {"disk", "warning", std::string(text) + "; only " + std::to_string(space.available >> 20U) + " MB are free",
            "free space: deploys and logs need it"};
  return check_of("disk", median < 20, text, text, "a disk this slow delays every deploy; put --data on a faster one");
}

void check_capabilities(std::vector<Check>& checks, const sandbox::HostCapabilities& host) {
  checks.push_back(check_of("privilege", host.privileged, "runs as root: every layer of isolation is there", "runs without root",
                            "start the server as root for memory limits, outside networks and disk-backed /tmp; it gives root up itself"));
  const auto controller = [](const std::string& version) { return "cgroup " + version; };
  checks.push_back(check_of("memory limit", host.memory_limit, controller(host.memory_controller),
                            "no memory controller: MemorySize is not enforced",
                            "delegate the memory controller to this user (systemd: Delegate=yes), or start as root"));
  checks.push_back(check_of("cpu quota", host.cpu_quota, controller(host.cpu_controller),
                            "no cpu controller: the CPU share of MemorySize is not enforced",
                            "delegate the cpu controller to this user, or start as root"));
  checks.push_back(check_of("process limit", host.process_limit, controller(host.pids_controller), "no pids controller",
                            "delegate the pids controller to this user, or start as root"));
  checks.push_back(check_of("freezer", host.freezer, controller(host.freezer_controller), "idle environments cannot be frozen",
                            "mount cgroup v2 or the v1 freezer"));
  checks.push_back(check_of("network", host.outside_network, "NAT with veth and nftables", "functions reach no outside network",
                            "start as root with nftables installed (apt-get install nftables)"));
  checks.push_back(check_of("tmp", host.disk_tmp, "disk-backed images", "/tmp is in memory",
                            "start as root on a kernel with loop devices, with e2fsprogs installed"));
  checks.push_back(
      check_of("seccomp", host.seccomp, "system call filter", "no system call filter", "use a kernel with CONFIG_SECCOMP_FILTER", true));
  for (const std::string& note : host.notes) checks.push_back({"note", "warning", note, "see above"});
}

Check check_server(const std::string& data) {
  const auto text = base::read_file(data + "/server.json", 1U << 20U);
  if (!text.ok()) return {"server", "warning", "no server runs on " + data, "start one: mayfly server --data " + data};
  const auto document = base::parse_json(*text);
  const auto* api = document.ok() && document->is_object() ? document->as_object().if_contains("api") : nullptr;
  if (api == nullptr || !api->is_string()) return {"server", "failed", data + "/server.json is damaged", "restart the server"};
  net::ClientRequest request;
  request.url = std::string(api->get_string()) + "/readyz";
  request.timeout = std::chrono::seconds(5);
  const auto answer = net::blocking_request(request);
  if (!answer.ok()) return {"server", "failed", answer.error().message(), "look at the server's log; start it again if it has ended"};
  return check_of("server", answer->status == 200, "ready at " + std::string(api->get_string()), "not ready: " + answer->body,
                  "look at the server's log", true);
}

std::vector<Check> examine(const std::string& data) {
  std::vector<Check> checks = {check_kernel()};
  const std::string scratch = std::filesystem::temp_directory_path().string() + "/mayfly-doctor-" + base::random_hex(4);
  sandbox::LauncherConfig config;
  config.instance = base::random_hex(4);
  config.code_directory = scratch + "/code";
  config.scratch_directory = scratch + "/scratch";
  config.bootstrap_directory = scratch + "/runtimes";
  config.roots.push_back({.id = "host", .directory = "/", .extra_binds = {}});
  config.server_uid = geteuid();
  config.server_gid = getegid();
  for (const std::string& directory : {config.code_directory, config.scratch_directory, config.bootstrap_directory}) {
    if (const auto made = base::make_directories(directory); !made.ok())
      checks.push_back({"sandbox", "failed", made.error().message(), "make the temporary directory writable"});
  }
  {
    const auto launcher = sandbox::Launcher::fork_off(config);
    if (launcher.ok())
      check_capabilities(checks, (*launcher)->capabilities());
    else
      checks.push_back({"sandbox", "failed", launcher.error().message(), "functions cannot run here until this is mended"});
  }
  (void)base::remove_tree(scratch).ok();
  std::error_code ec;
  checks.push_back(check_disk(std::filesystem::is_directory(data, ec) && access(data.c_str(), W_OK) == 0 ? data : "."));
  checks.push_back(check_server(data));
  return checks;
}

void print(const std::vector<Check>& checks, bool as_json) {
  if (as_json) {
    json::array rows;
    for (const Check& check : checks)
      rows.push_back(json::object{{"name", check.name}, {"status", check.status}, {"detail", check.detail}, {"remedy", check.remedy}});
    std::cout << base::pretty_json(json::object{{"checks", rows}});
    return;
  }
  for (const Check& check : checks) {
    const char* mark = check.status == "ok" ? "ok      " : check.status == "warning" ? "warning " : "FAILED  ";
    std::cout << mark << ' ' << check.name << ": " << check.detail << '\n';
    if (check.status != "ok") std::cout << "          -> " << check.remedy << '\n';
  }
}

}  // namespace

int run_doctor(const std::vector<std::string>& words) {
  CLI::App app("Examine this host: what Mayfly can do here, what is lost, and what to do about it", "mayfly doctor");
  bool as_json = false;
  const char* variable = std::getenv("MAYFLY_DATA");
  std::string data = variable == nullptr ? "./mayfly-data" : variable;
  app.add_flag("--json", as_json, "print JSON for programs");
  app.add_option("--data", data, "data directory of the server to ask");
  try {  // CLI11 reports through exceptions
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return 0;
  } catch (const CLI::ParseError& error) {
    std::cerr << "mayfly: " << error.what() << "\n";
    return 2;
  }
  const std::vector<Check> checks = examine(data);
  print(checks, as_json);
  for (const Check& check : checks) {
    if (check.status == "failed") return 1;
  }
  return 0;
}

}  // namespace mayfly::server
