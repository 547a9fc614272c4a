#include "sandbox/internal/workshop.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <deque>
#include <map>
#include <unordered_set>

#include "base/log.h"
#include "sandbox/internal/processes.h"
#include "sandbox/internal/protocol.h"
#include "sandbox/internal/scratch.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::uint32_t kInsideUser = 993;  // without root: what the launcher's own user is called inside, as on Lambda
constexpr std::uint32_t kInsideGroup = 990;
constexpr int kOutputPipeBytes = 1 << 20;
constexpr int kRetryMs = 10;
constexpr std::chrono::milliseconds kLetGoEvery{1000};  // how often what is kept is looked through
constexpr int kGroupTriesMax = 500;
constexpr std::size_t kDiscardsMost = 32;  // waiting; with more each one made is followed by one taken apart

// Everything of a blank that is a descriptor, in the order they travel; connectors follow.
template <typename Holder, typename Fd>
std::array<Fd*, 23> descriptors_of(Holder& blank) {
  auto& group = blank.group;
  auto& sandbox = blank.sandbox;
  return {&blank.init_pidfd,    &blank.report,        &blank.status,           &blank.orders,     &group.thaw,         &group.oom_event,
          &group.memory_events, &group.memory_stat,   &group.memory,           &group.cpu,        &group.pids,         &sandbox.runtime_api,
          &sandbox.data_api,    &sandbox.dns_udp,     &sandbox.dns_tcp,        &sandbox.output,   &sandbox.framed_log, &sandbox.control_in,
          &sandbox.control_out, &sandbox.freeze_file, &sandbox.cpu_quota_file, &sandbox.cpu_stat, &sandbox.main_status};
}

std::string write_blank(std::uint64_t number, const Blank& blank, std::vector<int>& descriptors) {
  Writer out(MessageKind::kMade);
  std::uint32_t present = 0;
  std::uint32_t bit = 1;
  for (const UniqueFd* fd : descriptors_of<const Blank, const UniqueFd>(blank)) {
    if (fd->valid()) {
      present |= bit;
      descriptors.push_back(fd->get());
    }
    bit <<= 1U;
  }
  for (const UniqueFd& connector : blank.sandbox.connectors) descriptors.push_back(connector.get());
  out.number(number).number(std::uint8_t{1}).number(blank.user).number(blank.init).number(present);
  for (const bool flag : {blank.sandbox.cgroup_v2_freezer, blank.sandbox.cgroup_v2_memory, blank.sandbox.cgroup_v2_cpu})
    out.number(static_cast<std::uint8_t>(flag));
  return out.take();
}

Blank read_blank(Reader& in, std::vector<UniqueFd>& descriptors) {
  Blank blank;
  blank.user = in.number<std::uint32_t>();
  blank.init = in.number<pid_t>();
  const auto present = in.number<std::uint32_t>();
  for (bool* flag : {&blank.sandbox.cgroup_v2_freezer, &blank.sandbox.cgroup_v2_memory, &blank.sandbox.cgroup_v2_cpu}) *flag = in.flag();
  std::size_t next = 0;
  std::uint32_t bit = 1;
  for (UniqueFd* fd : descriptors_of<Blank, UniqueFd>(blank)) {
    if ((present & bit) != 0 && next < descriptors.size()) *fd = std::move(descriptors[next++]);
    bit <<= 1U;
  }
  while (next < descriptors.size()) blank.sandbox.connectors.push_back(std::move(descriptors[next++]));
  return blank;
}

// The process itself.
class Worker {
 public:
  Worker(const WorkshopTools& tools, UniqueFd socket, std::unique_ptr<Scratch> scratch)
      : tools_(tools), socket_(std::move(socket)), scratch_(std::move(scratch)) {}
  void run();

 private:
  struct Order {
    std::uint64_t number;
    SandboxShape shape;
  };
  // What of a sandbox is taken apart here.
  struct Place {
    std::uint32_t user = 0;
    ScratchMount tmp;
  };

  bool take_requests();
  void wait();
  void let_go_of_kept();
  void serve(const Order& order);
  Result<Blank> make(const Order& order, Place& place);
  Result<void> spawn(const SandboxShape& shape, Place& place, const UniqueFd& netns, Blank& blank);
  void fill(BlankPlan& plan, const Place& place) const;
  void discard(std::uint64_t number, Place& place);
  void retry_groups();
  Result<std::uint32_t> take_user();
  [[nodiscard]] std::uint32_t group_of(std::uint32_t user) const { return tools_.privileged ? user : kInsideGroup; }

  const WorkshopTools& tools_;
  UniqueFd socket_;
  std::unique_ptr<Scratch> scratch_;
  std::deque<Order> orders_;
  std::deque<std::uint64_t> discards_;
  std::map<std::uint64_t, Place> places_;
  std::map<std::uint64_t, int> groups_to_remove_;  // and how often that was tried
  std::unordered_set<std::uint32_t> users_;
  std::uint32_t next_user_ = 0;
  std::chrono::steady_clock::time_point let_go_at_;  // last
  std::uint64_t tmp_due_ = 0;                        // a size to have ready for the next one; once there is nothing else to do
};

// False when the launcher is gone.
bool Worker::take_requests() {
  while (true) {
    auto packet = receive_packet(socket_.get(), MSG_DONTWAIT);
    if (!packet.ok()) return false;
    if (!*packet) return true;
    Reader in((*packet)->bytes);
    const auto kind = in.number<MessageKind>();
    const auto number = in.number<std::uint64_t>();
    if (kind == MessageKind::kDiscard) {
      discards_.push_back(number);
      continue;
    }
    SandboxShape shape{.root_id = in.text(),
                       .network = in.number<Network>(),
                       .tmp_bytes = in.number<std::uint64_t>(),
                       .connectors = in.number<std::uint32_t>()};
    orders_.push_back({.number = number, .shape = std::move(shape)});
  }
}

// Without its helpers the workshop can make nothing more. With it end launcher and server, which a supervisor starts anew.
[[noreturn]] void end_for_good(const std::string& why) {
  base::log_error("the workshop of sandboxes ends", {{"what", why}});
  _exit(1);
}

void Worker::wait() {
  std::array<pollfd, 2> ready{
      {{.fd = socket_.get(), .events = POLLIN, .revents = 0}, {.fd = scratch_->fd(), .events = POLLIN, .revents = 0}}};
  const bool keeps = tools_.network.kept() > 0 || scratch_->kept() > 0;
  const int patience = !groups_to_remove_.empty() ? kRetryMs : keeps ? static_cast<int>(kLetGoEvery.count()) : -1;
  (void)poll(ready.data(), ready.size(), patience);
  if (ready[1].revents != 0 && !scratch_->collect()) end_for_good("a process that makes or discards /tmp has ended");
  retry_groups();
}

// By the clock, whatever else there is to do: where something always is, nothing would ever be let go of.
void Worker::let_go_of_kept() {
  const auto now = std::chrono::steady_clock::now();
  if (now - let_go_at_ < kLetGoEvery) return;
  let_go_at_ = now;
  tools_.network.let_go_of_kept();
  scratch_->let_go_of_kept();
}

void Worker::run() {
  while (take_requests()) {
    let_go_of_kept();
    if (!orders_.empty()) {
      const Order order = std::move(orders_.front());
      orders_.pop_front();
      serve(order);
      if (discards_.size() <= kDiscardsMost) continue;
    }
    if (!discards_.empty()) {
      const std::uint64_t number = discards_.front();
      discards_.pop_front();
      const auto place = places_.find(number);
      if (place == places_.end()) {
        if (!tools_.groups.remove(number)) groups_to_remove_.emplace(number, 0);
        continue;
      }
      discard(place->first, place->second);
      places_.erase(place);
    } else if (tmp_due_ != 0) {
      scratch_->prepare(tmp_due_, 1);
      tmp_due_ = 0;
    } else {
      wait();
    }
  }
  for (auto& [number, place] : places_) scratch_->discard(place.tmp);  // the launcher sees to the rest
  scratch_.reset();
}

void Worker::retry_groups() {
  for (auto group = groups_to_remove_.begin(); group != groups_to_remove_.end();) {
    const bool gone = tools_.groups.remove(group->first);
    if (!gone && ++group->second == kGroupTriesMax)
      base::log_warning("a sandbox's control group could not be deleted", {{"sandbox", std::to_string(group->first)}});
    group = gone || group->second >= kGroupTriesMax ? groups_to_remove_.erase(group) : std::next(group);
  }
}

Result<std::uint32_t> Worker::take_user() {
  if (!tools_.privileged) return kInsideUser;
  const std::uint32_t usable = tools_.config.uid_count - 2;  // the first is every sandbox's init, the last every zygote
  for (std::uint32_t i = 0; i < usable; ++i) {
    const std::uint32_t user = tools_.config.uid_base + 1 + next_user_;
    next_user_ = (next_user_ + 1) % usable;  // round robin: an id rests as long as possible
    if (users_.insert(user).second) return user;
  }
  return Error(ErrorCode::kResourceExhausted, "all " + std::to_string(usable) + " user ids for sandboxes are taken");
}

void Worker::serve(const Order& order) {
  Place place;
  auto made = make(order, place);
  std::vector<int> descriptors;
  std::string bytes;
  if (made.ok()) {
    places_.emplace(order.number, std::move(place));
    bytes = write_blank(order.number, *made, descriptors);
    tmp_due_ = order.shape.tmp_bytes;
  } else {
    discard(order.number, place);
    Writer out(MessageKind::kMade);
    bytes = out.number(order.number).number(std::uint8_t{0}).error(made.error()).take();
  }
  (void)send_packet(socket_.get(), bytes, descriptors, 0);  // failing: the launcher is gone, as the next read shows
}

Result<Blank> Worker::make(const Order& order, Place& place) {
  const SandboxShape& shape = order.shape;
  Blank blank;
  // Which goes on beside what follows.
  scratch_->prepare(shape.tmp_bytes, 1 + static_cast<std::size_t>(std::ranges::count_if(
                                             orders_, [&](const Order& other) { return other.shape.tmp_bytes == shape.tmp_bytes; })));
  MAYFLY_ASSIGN(place.user, take_user());
  blank.user = place.user;
  MAYFLY_ASSIGN(SandboxNetwork network, tools_.network.make(order.number, shape.network, shape.connectors).with_context("network"));
  Sandbox& sandbox = blank.sandbox;
  sandbox.runtime_api = std::move(network.runtime_api);
  sandbox.data_api = std::move(network.data_api);
  sandbox.dns_udp = std::move(network.dns_udp);
  sandbox.dns_tcp = std::move(network.dns_tcp);
  sandbox.connectors = std::move(network.connectors);
  MAYFLY_ASSIGN(blank.group, tools_.groups.make(order.number, sandbox));
  MAYFLY_ASSIGN(place.tmp, scratch_->make(shape.tmp_bytes, place.user, group_of(place.user)).with_context("/tmp"));
  MAYFLY_TRY(spawn(shape, place, network.netns, blank));
  return blank;
}

void Worker::fill(BlankPlan& plan, const Place& place) const {
  tools_.roots.mount_point().copy(plan.new_root, sizeof plan.new_root - 1);
  const auto& masks = tools_.roots.proc_masks();
  plan.mask_count = static_cast<std::uint32_t>(std::min(masks.size(), BlankPlan::kMasksMax));
  std::copy_n(masks.begin(), plan.mask_count, plan.masks);
  plan.switch_identity = tools_.privileged;
  plan.user = plan.group = place.user;
  plan.init_user = plan.init_group = tools_.config.uid_base;
  plan.filter_length = static_cast<std::uint32_t>(tools_.function_filter.size());
  std::copy_n(tools_.function_filter.begin(), plan.filter_length, plan.filter);
  plan.init_filter_length = static_cast<std::uint32_t>(tools_.init_filter.size());
  std::copy_n(tools_.init_filter.begin(), plan.init_filter_length, plan.init_filter);
  plan.fail_at = tools_.fail_at;
}

Result<void> Worker::spawn(const SandboxShape& shape, Place& place, const UniqueFd& netns, Blank& blank) {
  MAYFLY_ASSIGN(const UniqueFd root, tools_.roots.clone_root(shape.root_id));
  MAYFLY_ASSIGN(const ReadyMount user_files, tools_.roots.user_files(place.user, group_of(place.user)));
  MAYFLY_ASSIGN(Pipe output, make_pipe());
  MAYFLY_ASSIGN(Pipe framed, make_pipe());
  MAYFLY_ASSIGN(Pipe to_server, make_pipe());
  MAYFLY_ASSIGN(Pipe to_main, make_pipe());
  // Each end waits as its holder does: the server in its event loop, a bootstrap in its read.
  if (fcntl(to_main.read.get(), F_SETFL, 0) != 0 || fcntl(to_main.write.get(), F_SETFL, O_NONBLOCK) != 0)
    return errno_error("set up the control pipes", errno);
  MAYFLY_ASSIGN(Pipe report, make_pipe());
  (void)fcntl(output.write.get(), F_SETPIPE_SZ, kOutputPipeBytes);
  // /dev/stdout and /dev/stderr open the pipe anew, as the function's user.
  if (tools_.privileged && fchown(output.write.get(), place.user, place.user) != 0)
    return errno_error("give the output pipe to the sandbox", errno);
  int status[2] = {-1, -1};
  int orders[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) != 0) return errno_error("make a socket pair", errno);
  blank.status = UniqueFd(status[0]);
  const UniqueFd init_status(status[1]);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, orders) != 0) return errno_error("make a socket pair", errno);
  blank.orders = UniqueFd(orders[0]);
  const UniqueFd main_orders(orders[1]);
  if (fcntl(init_status.get(), F_SETFL, O_NONBLOCK) != 0) return errno_error("set up a socket pair", errno);

  auto plan = std::make_unique<BlankPlan>();
  fill(*plan, place);
  std::vector<int> descriptors = {root.get(),         netns.get(),           tools_.null,        output.write.get(), framed.write.get(),
                                  to_main.read.get(), to_server.write.get(), report.write.get(), init_status.get(),  main_orders.get()};
  const auto add_mount = [&](const UniqueFd& mount, const std::string& target) {
    target.copy(plan->mount_targets[plan->mount_count++], sizeof plan->mount_targets[0] - 1);
    descriptors.push_back(mount.get());
  };
  add_mount(user_files.mount, user_files.target);
  add_mount(place.tmp.mount, "tmp");
  for (const auto& procs : blank.group.attach) descriptors.push_back(procs.get());
  plan->attach_count = static_cast<std::uint32_t>(blank.group.attach.size());
  plan->into_group = blank.group.into.valid();
  if (plan->into_group) descriptors.push_back(blank.group.into.get());
  auto born = tools_.warden.spawn(*plan, descriptors);
  if (!born.ok() && born.error().code() == ErrorCode::kUnavailable) end_for_good(born.error().message());
  MAYFLY_ASSIGN(Warden::Blank spawned, std::move(born));
  blank.init = spawned.init;
  blank.init_pidfd = std::move(spawned.init_pidfd);
  blank.report = std::move(report.read);
  blank.sandbox.output = std::move(output.read);
  blank.sandbox.framed_log = std::move(framed.read);
  blank.sandbox.control_in = std::move(to_server.read);
  blank.sandbox.control_out = std::move(to_main.write);
  blank.group.attach.clear();
  blank.group.into.reset();
  place.tmp.mount.reset();
  return {};
}

// Gives back what a sandbox had; its processes are gone or were never there.
void Worker::discard(std::uint64_t number, Place& place) {
  tools_.network.remove(number);
  scratch_->discard(place.tmp);
  if (!tools_.groups.remove(number)) groups_to_remove_.emplace(number, 0);
  if (!tools_.privileged || place.user == 0) return;
  tools_.roots.forget_user(place.user);
  users_.erase(place.user);
}

[[noreturn]] void run_worker(const WorkshopTools& tools, UniqueFd socket) {
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  for (const int fd : tools.launchers_own) close(fd);
  Writer out(MessageKind::kWorkshopReady);
  auto scratch = Scratch::create({.directory = tools.config.scratch_directory, .privileged = tools.privileged});
  out.number(static_cast<std::uint8_t>(scratch.ok()));
  if (!scratch.ok()) out.error(scratch.error());
  if (scratch.ok()) out.text((*scratch)->why_not_disk());
  (void)send_packet(socket.get(), out.take(), {}, 0);
  if (scratch.ok()) Worker(tools, std::move(socket), std::move(scratch).value()).run();
  _exit(0);
}

}  // namespace

Result<std::unique_ptr<Workshop>> Workshop::open(const WorkshopTools& tools) {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return errno_error("start the process that makes sandboxes", errno);
  if (pid == 0) {
    ours.reset();
    run_worker(tools, std::move(theirs));
  }
  theirs.reset();
  std::unique_ptr<Workshop> workshop(new Workshop(std::move(ours), pid));
  MAYFLY_ASSIGN(const auto packet, receive_packet(workshop->fd(), 0));
  Reader in(packet->bytes);
  in.number<MessageKind>();
  if (!in.flag()) return in.error();
  workshop->why_not_disk_ = in.text();
  return workshop;
}

Workshop::~Workshop() {
  socket_.reset();
  reap(pid_);
}

// A full socket makes these wait: the workshop reads all that is there between any two sandboxes.
void Workshop::make(std::uint64_t number, const SandboxShape& shape) const {
  Writer out(MessageKind::kMake);
  out.number(number).text(shape.root_id).number(shape.network).number(shape.tmp_bytes).number(shape.connectors);
  (void)send_packet(socket_.get(), out.take(), {}, 0);  // failing: collect() says why
}

void Workshop::discard(std::uint64_t number) const {
  (void)send_packet(socket_.get(), Writer(MessageKind::kDiscard).number(number).take(), {}, 0);
}

// One whose handle was lost. Its number cannot be another's: the process is a child that nobody has waited for.
void Workshop::give_up(std::uint64_t number, pid_t init) const {
  (void)kill(init, SIGKILL);
  reap(init);
  discard(number);
}

Result<std::optional<Workshop::Made>> Workshop::collect() const {
  auto packet = receive_packet(socket_.get(), MSG_DONTWAIT);
  if (!packet.ok()) return Error(ErrorCode::kUnavailable, "the process that makes sandboxes has ended");
  if (!*packet) return std::optional<Made>();
  Reader in((*packet)->bytes);
  in.number<MessageKind>();
  const auto number = in.number<std::uint64_t>();
  if (!in.flag()) return std::optional<Made>({.number = number, .blank = in.error()});
  if ((*packet)->descriptors_lost) {
    give_up(number, read_blank(in, (*packet)->descriptors).init);
    return std::optional<Made>({.number = number, .blank = no_room_for_descriptors()});
  }
  return std::optional<Made>({.number = number, .blank = read_blank(in, (*packet)->descriptors)});
}

}  // namespace mayfly::sandbox::internal
