// Hostile and friendly archives, through the real launcher.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "sandbox/internal/archives.h"
#include "sandbox/internal/test_support.h"

namespace mayfly::sandbox {
namespace {

std::uint32_t crc32_of(std::string_view bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
  }
  return ~crc;
}

// Writes zips as no sane tool would: names, modes and sizes are taken as given. Method "stored" unless raw bytes of another are given.
class Zip {
 public:
  struct Entry {
    std::string name;
    std::string content;
    std::uint32_t mode = 0100644;  // whole st_mode
    std::uint16_t flags = 0;
    std::uint16_t method = 0;
    std::uint64_t real_size = 0;  // unpacked, when the method is not 0
    std::uint32_t real_crc = 0;
    bool unix_made = true;
  };
  Zip& add(const Entry& entry) {
    const bool stored = entry.method == 0;
    const std::uint32_t crc = stored ? crc32_of(entry.content) : entry.real_crc;
    const auto size = static_cast<std::uint32_t>(stored ? entry.content.size() : entry.real_size);
    const auto offset = static_cast<std::uint32_t>(body_.size());
    put(body_, 0x04034b50, 4);
    common(body_, entry, crc, size);
    put(body_, 0, 2);
    body_ += entry.name + entry.content;
    put(directory_, 0x02014b50, 4);
    put(directory_, entry.unix_made ? 0x031e : 0x0014, 2);
    common(directory_, entry, crc, size);
    put(directory_, 0, 2);  // extra
    put(directory_, 0, 2);  // comment
    put(directory_, 0, 2);  // disk
    put(directory_, 0, 2);  // internal attributes
    put(directory_, entry.unix_made ? entry.mode << 16U : 0, 4);
    put(directory_, offset, 4);
    directory_ += entry.name;
    ++count_;
    return *this;
  }
  Zip& file(const std::string& name, const std::string& content, std::uint32_t mode = 0100644) {
    return add({.name = name, .content = content, .mode = mode});
  }
  Zip& link(const std::string& name, const std::string& target) { return add({.name = name, .content = target, .mode = 0120777}); }
  [[nodiscard]] std::string bytes() const {
    std::string zip = body_ + directory_;
    put(zip, 0x06054b50, 4);
    put(zip, 0, 4);
    put(zip, count_, 2);
    put(zip, count_, 2);
    put(zip, static_cast<std::uint32_t>(directory_.size()), 4);
    put(zip, static_cast<std::uint32_t>(body_.size()), 4);
    put(zip, 0, 2);
    return zip;
  }

 private:
  static void put(std::string& to, std::uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) to += static_cast<char>(value >> (8 * i) & 0xff);
  }
  static void common(std::string& to, const Entry& entry, std::uint32_t crc, std::uint32_t size) {
    put(to, 20, 2);
    put(to, entry.flags, 2);
    put(to, entry.method, 2);
    put(to, 0, 4);  // time
    put(to, crc, 4);
    put(to, static_cast<std::uint32_t>(entry.content.size()), 4);
    put(to, size, 4);
    put(to, static_cast<std::uint32_t>(entry.name.size()), 2);
  }
  std::string body_, directory_;
  std::uint16_t count_ = 0;
};

class UnpackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MAYFLY_NEEDS_ROOT();
    ASSERT_TRUE(bench.open());
  }
  std::string next_id() {
    std::string id = std::to_string(++count_);
    return std::string(64 - id.size(), 'e') + id;
  }
  // The refusal's text; the whole must leave nothing behind.
  std::string refusal(const std::string& zip, const Launcher::UnpackLimits& limits = {}) {
    const std::string id = next_id();
    const auto result = bench.unpack(zip, id, limits);
    if (result.ok()) return "accepted";
    EXPECT_EQ(result.error().code(), base::ErrorCode::kInvalidArgument) << result.error().to_string();
    EXPECT_EQ(result.error().id(), "InvalidParameterValueException");
    EXPECT_FALSE(std::filesystem::exists(bench.config.code_directory + "/" + id));
    return result.error().message();
  }
  std::string content(const std::string& id, const std::string& name) {
    std::stringstream text;
    text << std::ifstream(bench.config.code_directory + "/" + id + "/" + name).rdbuf();
    return text.str();
  }
  mode_t mode(const std::string& id, const std::string& name) {
    struct stat info{};
    EXPECT_EQ(lstat((bench.config.code_directory + "/" + id + "/" + name).c_str(), &info), 0) << name;
    EXPECT_EQ(info.st_uid, bench.config.server_uid);
    return info.st_mode & 07777U;
  }
  // Of what the launcher does by itself, without a word to the server.
  static bool eventually(const std::function<bool()>& done) {
    for (int i = 0; i < 4000 && !done(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return done();
  }
  // The file that says that the tree is on the disk; empty when there is none.
  std::string mark(const std::string& id) {
    for (const auto& entry : std::filesystem::directory_iterator(bench.config.code_directory)) {
      if (entry.path().filename().string().starts_with(id + ".synced-")) return entry.path().string();
    }
    return {};
  }
  ino_t inode(const std::string& id) {
    struct stat info{};
    EXPECT_EQ(lstat((bench.config.code_directory + "/" + id).c_str(), &info), 0);
    return info.st_ino;
  }
  // The process that unpacked that tree and is still there.
  pid_t unpacker(const std::string& id) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::error_code none;
      if (std::filesystem::read_symlink(entry.path() / "root", none).string() == bench.config.code_directory + "/" + id)
        return std::stoi(entry.path().filename().string());
    }
    return -1;
  }
  bool kill_unpacker(const std::string& id) {
    const pid_t pid = unpacker(id);
    return pid > 0 && kill(pid, SIGKILL) == 0;
  }
  test::TemporaryDirectory directory;
  test::Bench bench{directory.path()};
  int count_ = 0;
};

#define EXPECT_REFUSED(zip, part)                                     \
  do {                                                                \
    const std::string text = refusal(zip);                            \
    EXPECT_NE(text.find(part), std::string::npos) << "got: " << text; \
  } while (false)

TEST_F(UnpackTest, UnpacksFilesDirectoriesAndInnerLinksReadOnly) {
  const std::string id = next_id();
  const auto zip = Zip()
                       .file("index.py", "print(1)")
                       .file("bin/tool", "#!/bin/sh\necho tool", 0100755)
                       .add({.name = "empty/", .content = "", .mode = 040755});
  const auto result = bench.unpack(
      Zip(zip).link("bin/alias", "tool").link("deep/up", "../bin/tool").file("\xc3\xa4.txt", "umlaut").file("zero", "", 0100000).bytes(),
      id);
  ASSERT_TRUE(result.ok()) << result.error().to_string();
  EXPECT_EQ(*result, 8U + 19U + 6U);
  EXPECT_EQ(content(id, "index.py"), "print(1)");
  EXPECT_EQ(content(id, "bin/alias"), "#!/bin/sh\necho tool");
  EXPECT_EQ(content(id, "deep/up"), "#!/bin/sh\necho tool");
  EXPECT_EQ(content(id, "\xc3\xa4.txt"), "umlaut");
  EXPECT_EQ(mode(id, "index.py"), 0444U);
  EXPECT_EQ(mode(id, "bin/tool"), 0555U);
  EXPECT_EQ(mode(id, "zero"), 0444U);
  EXPECT_EQ(mode(id, "bin"), 0555U);
  EXPECT_EQ(mode(id, "empty"), 0555U);
  EXPECT_EQ(mode(id, "."), 0555U);
  auto spec = bench.spec(id);
  spec.arguments = {"/var/task/bin/alias"};
  EXPECT_EQ(bench.run(spec).output, "tool\n");
}

TEST_F(UnpackTest, AnExistingDirectoryAnswersItsSize) {
  const std::string id = next_id();
  ASSERT_TRUE(bench.unpack(Zip().file("a", "12345").file("b/c", "123").bytes(), id).ok());
  const auto again = bench.unpack("not even a zip", id);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, 8U);
}

TEST_F(UnpackTest, ArchivesMadeOnWindowsAreReadable) {
  const std::string id = next_id();
  ASSERT_TRUE(bench.unpack(Zip().add({.name = "a/index.js", .content = "x", .unix_made = false}).bytes(), id).ok());
  EXPECT_EQ(mode(id, "a/index.js"), 0444U);
}

TEST_F(UnpackTest, DropsSetuidBits) {
  const std::string id = next_id();
  ASSERT_TRUE(bench.unpack(Zip().file("su", "x", 0106755).bytes(), id).ok());
  EXPECT_EQ(mode(id, "su"), 0555U);
}

TEST_F(UnpackTest, RefusesWhatIsNoZip) {
  constexpr const char* kMessage = "Could not unzip uploaded file. Please check your file, then try to upload again.";
  EXPECT_REFUSED("", kMessage);
  EXPECT_REFUSED("this is no zip", kMessage);
  EXPECT_REFUSED(std::string(100'000, '\0'), kMessage);
  const std::string good = Zip().file("a", std::string(1000, 'x')).bytes();
  EXPECT_REFUSED(good.substr(0, good.size() / 2), kMessage);
  std::string damaged = good;
  damaged[100] = 'y';  // the checksum no longer fits
  EXPECT_REFUSED(damaged, kMessage);
  EXPECT_REFUSED(Zip().bytes(), "non-empty zip");
}

TEST_F(UnpackTest, RefusesEntriesThatLeaveTheDirectory) {
  for (const char* name : {"../evil", "a/../../evil", "a/..", ".."}) EXPECT_REFUSED(Zip().file(name, "x").bytes(), "\"..\"");
  EXPECT_REFUSED(Zip().file("/etc/cron.d/evil", "x").bytes(), "absolute");
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/evil"));
  EXPECT_FALSE(std::filesystem::exists(bench.config.code_directory + "/evil"));
}

TEST_F(UnpackTest, RefusesLinksThatLeaveTheDirectory) {
  EXPECT_REFUSED(Zip().link("l", "/etc/passwd").bytes(), "leaves the archive");
  EXPECT_REFUSED(Zip().link("l", "../x").bytes(), "leaves the archive");
  EXPECT_REFUSED(Zip().link("a/l", "../../x").bytes(), "leaves the archive");
  EXPECT_REFUSED(Zip().link("l", "").bytes(), "link");
  // Behind a name ".." could climb out through another link, whatever the text says.
  EXPECT_REFUSED(Zip().file("a/b/c", "x").link("l", "a/b").link("m", "l/../../../x").bytes(), "leaves the archive");
  EXPECT_REFUSED(Zip().link("m", "l/../x").bytes(), "leaves the archive");
}

TEST_F(UnpackTest, RefusesToWriteThroughLinksOfTheArchive) {
  EXPECT_REFUSED(Zip().file("d/f", "x").link("l", "d").file("l/evil", "x").bytes(), "l/evil");
}

TEST_F(UnpackTest, RefusesDuplicateAndConflictingNames) {
  EXPECT_REFUSED(Zip().file("a", "1").file("a", "2").bytes(), "appears twice");
  EXPECT_REFUSED(Zip().file("a", "1").file("./a", "2").bytes(), "appears twice");
  EXPECT_REFUSED(Zip().file("a", "1").link("a", "b").bytes(), "appears twice");
  EXPECT_REFUSED(Zip().file("a", "1").file("a/b", "2").bytes(), "needs a directory");
  EXPECT_REFUSED(Zip().file("a/b", "1").file("a", "2").bytes(), "appears twice");
}

TEST_F(UnpackTest, RefusesDevicesAndOtherSpecialFiles) {
  for (const std::uint32_t type : {020000U, 060000U, 010000U, 0140000U})
    EXPECT_REFUSED(Zip().file("dev", "", type | 0666U).bytes(), "neither a file");
}

TEST_F(UnpackTest, RefusesEncryptedEntries) {
  EXPECT_REFUSED(Zip().add({.name = "a", .content = std::string(20, 'x'), .flags = 1}).bytes(), "encrypted");
}

TEST_F(UnpackTest, RefusesNulBytesAndOverlongNames) {
  EXPECT_REFUSED(Zip().file(std::string("good\0evil", 9), "x").bytes(), "NUL");
  EXPECT_REFUSED(Zip().file(std::string(256, 'n'), "x").bytes(), "longer than 255");
  std::string longest;
  for (int i = 0; i < 30; ++i) longest += std::string(200, 'd') + "/";
  EXPECT_REFUSED(Zip().file(longest + "f", "x").bytes(), "longer than 4096");
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "d/";
  EXPECT_REFUSED(Zip().file(deep + "f", "x").bytes(), "nested deeper than 64");
  // What a terminal must not see is shown escaped.
  EXPECT_REFUSED(Zip().file("../\x1b[2J", "x").bytes(), "\\x1b[2J");
}

TEST_F(UnpackTest, RefusesTooManyEntriesAndTooManyBytes) {
  Zip many;
  for (int i = 0; i < 11; ++i) many.file("f" + std::to_string(i), "x");
  EXPECT_NE(refusal(many.bytes(), {.entries_max = 10}).find("more than 10 entries"), std::string::npos);
  EXPECT_NE(
      refusal(Zip().file("a", std::string(2000, 'x')).bytes(), {.bytes_max = 1000}).find("Unzipped size must be smaller than 1000 bytes"),
      std::string::npos);
}

// deflate of `size` zero bytes: stored-block free, made by hand of a fixed-Huffman run: one literal 0, then matches of length 258,
// distance 1.
std::string deflated_zeros(std::uint64_t runs) {
  std::string out;
  std::uint32_t buffer = 0;
  int bits = 0;
  const auto put = [&](std::uint32_t value, int count) {  // least significant bit first
    for (int i = 0; i < count; ++i) {
      buffer |= (value >> i & 1U) << bits;
      if (++bits == 8) {
        out += static_cast<char>(buffer);
        buffer = 0;
        bits = 0;
      }
    }
  };
  put(1, 1);           // last block
  put(1, 2);           // fixed Huffman codes
  put(0b00001100, 8);  // literal 0: code 00110000, most significant bit first
  for (std::uint64_t i = 0; i < runs; ++i) {
    put(0b10100011, 8);  // length 258: code 285, 11000101 reversed
    put(0, 5);           // distance 1
  }
  put(0, 7);  // end of block
  if (bits > 0) out += static_cast<char>(buffer);
  return out;
}

TEST_F(UnpackTest, RefusesBombs) {
  constexpr std::uint64_t kRuns = 200'000;  // 51.6 MB in 325 kB: 159 to 1
  const Zip::Entry bomb{.name = "zeros",
                        .content = deflated_zeros(kRuns),
                        .method = 8,
                        .real_size = kRuns * 258 + 1,
                        .real_crc = crc32_of(std::string(kRuns * 258 + 1, '\0'))};
  const auto zip = Zip().add(bomb).bytes();
  const auto fine = bench.unpack(zip, next_id());
  ASSERT_TRUE(fine.ok()) << "the control: " << fine.error().to_string();
  EXPECT_EQ(*fine, kRuns * 258 + 1);
  EXPECT_NE(refusal(zip, {.ratio_max = 100}).find("more than 100 times"), std::string::npos);
}

// LZMA (method 14) with a dictionary of 4 GiB less one byte: the decoder would allocate it before it sees that the data are none.
TEST_F(UnpackTest, RefusesCompressionThatAllocatesWhatTheArchiveSays) {
  constexpr std::uint16_t kLzma = 14;
  const std::string properties("\x09\x04\x05\x00\x5d\xff\xff\xff\xff", 9);
  const Zip::Entry entry{.name = "a", .content = properties + std::string(32, '\0'), .method = kLzma, .real_size = 150, .real_crc = 1};
  EXPECT_NE(refusal(Zip().add(entry).bytes()).find("\"stored\" or \"deflated\""), std::string::npos);
}

TEST_F(UnpackTest, UnpacksThousandsOfFiles) {
  Zip many;
  for (int i = 0; i < 1000; ++i) many.file("d" + std::to_string(i % 50) + "/f" + std::to_string(i), "content");
  const auto result = bench.unpack(many.bytes(), next_id());
  ASSERT_TRUE(result.ok()) << result.error().to_string();
  EXPECT_EQ(*result, 7'000U);
}

TEST_F(UnpackTest, AProcessWaitsForTheNextArchiveAndItsDeathHarmsNothing) {
  const auto waiting = [&] {
    std::string name;
    for (const auto& entry : std::filesystem::directory_iterator(bench.config.code_directory)) {
      if (entry.path().filename().string().starts_with("new.tmp-")) name = entry.path().string();
    }
    return name;
  };
  EXPECT_EQ(waiting(), "") << "no archive has come yet";
  std::string first;
  for (const char* content : {"one", "two", "three"}) {
    const std::string id = next_id();
    ASSERT_TRUE(bench.unpack(Zip().file("a", content).bytes(), id).ok());
    EXPECT_EQ(this->content(id, "a"), content);
    EXPECT_EQ(mode(id, "a"), 0444U);
    ASSERT_TRUE(eventually([&] { return !waiting().empty(); }));
    EXPECT_NE(waiting(), first) << "one process takes one archive";
    first = waiting();
  }
  // What the launcher has as its child in that directory.
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code none;
    if (std::filesystem::read_symlink(entry.path() / "root", none).string() == first)
      kill(std::stoi(entry.path().filename().string()), SIGKILL);
  }
  const std::string id = next_id();
  const auto after = bench.unpack(Zip().file("a", "four").bytes(), id);
  ASSERT_TRUE(after.ok()) << after.error().to_string();
  EXPECT_EQ(content(id, "a"), "four");
}

TEST_F(UnpackTest, UnpackedCodeIsWrittenToTheDiskAndWhatMayNotBeIsTakenAway) {
  const std::string good = next_id(), doubtful = next_id(), swapped = next_id();
  for (const auto& id : {good, doubtful, swapped}) ASSERT_TRUE(bench.unpack(Zip().file("a", "content").bytes(), id).ok());
  for (const auto& id : {good, doubtful, swapped}) ASSERT_TRUE(eventually([&] { return !mark(id).empty(); }));
  bench.close();
  std::filesystem::remove(mark(doubtful));  // as a crash of the machine leaves it
  const std::string tree = bench.config.code_directory + "/" + swapped;
  std::filesystem::rename(tree, tree + ".tmp-former");  // kept, so that the next has another inode
  std::filesystem::create_directory(tree);
  ASSERT_TRUE(bench.open());
  for (const auto& id : {doubtful, swapped}) {
    EXPECT_FALSE(std::filesystem::exists(bench.config.code_directory + "/" + id));
    EXPECT_EQ(mark(id), "") << "a mark of a tree that has gone";
  }
  EXPECT_EQ(content(good, "a"), "content");
  EXPECT_NE(mark(good), "");
  ASSERT_TRUE(bench.unpack(Zip().file("a", "content").bytes(), doubtful).ok());
  EXPECT_EQ(content(doubtful, "a"), "content");
  EXPECT_TRUE(eventually([&] { return !mark(doubtful).empty(); }));
}

TEST_F(UnpackTest, CodeThatDoesNotGetToTheDiskIsUnpackedOnceMore) {
  const std::string id = next_id();
  ASSERT_TRUE(bench.unpack(Zip().file("a", "content").bytes(), id).ok());
  const ino_t first = inode(id);
  ASSERT_TRUE(kill_unpacker(id)) << "it waits a moment before it writes to the disk";
  ASSERT_TRUE(eventually([&] { return !mark(id).empty(); }));
  EXPECT_NE(inode(id), first);
  EXPECT_EQ(content(id, "a"), "content");
}

// Bad code in an archive might take its unpacker over: that has the server's user, so it sees no process but its own, and not for long.
TEST_F(UnpackTest, AnUnpackerSeesNoOtherProcessAndIsKilledWhenItStays) {
  const std::string id = next_id();
  std::vector<std::uint64_t> told;
  auto archives = internal::Archives::create(
      {.directory = bench.config.code_directory, .privileged = true, .user = bench.config.server_uid, .group = bench.config.server_gid},
      [&](int, std::uint64_t job) { told.push_back(job); });
  ASSERT_TRUE(archives.ok()) << archives.error().to_string();
  const auto attend = [&] {
    std::optional<ArchiveUnpacked> answer;
    for (const std::uint64_t job : std::vector<std::uint64_t>(told)) {
      if (auto heard = (*archives)->attend(job)) answer = std::move(heard);
    }
    return answer;
  };
  base::UniqueFd archive(memfd_create("archive", MFD_CLOEXEC));
  ASSERT_TRUE(base::write_all(archive.get(), Zip().file("a", "content").bytes()).ok());
  ASSERT_TRUE((*archives)->unpack({.request = 1, .code_id = id, .limits = {}}, std::move(archive)).ok());
  bool answered = false;
  ASSERT_TRUE(eventually([&] { return answered = answered || attend().has_value(); }));
  const pid_t pid = unpacker(id);
  ASSERT_GT(pid, 0);
  ASSERT_EQ(kill(pid, SIGSTOP), 0);  // it stays after its answer
  const auto space = [](const std::string& process) { return std::filesystem::read_symlink("/proc/" + process + "/ns/pid").string(); };
  EXPECT_NE(space(std::to_string(pid)), space("self"));
  const auto due = (*archives)->next_due();
  ASSERT_LT(due, internal::Archives::Clock::now() + std::chrono::seconds(31));
  (*archives)->end_overdue(due - std::chrono::milliseconds(1));
  EXPECT_EQ(unpacker(id), pid);
  (*archives)->end_overdue(due);
  ASSERT_TRUE(eventually([&] {
    EXPECT_FALSE(attend().has_value()) << "there is one answer";
    return !mark(id).empty();
  })) << "it is unpacked once more";
  EXPECT_NE(unpacker(id), pid);
}

TEST_F(UnpackTest, CodeThatCannotGetToTheDiskIsTakenAway) {
  const std::string id = next_id();
  base::UniqueFd archive(memfd_create("archive", MFD_CLOEXEC));
  ASSERT_TRUE(base::write_all(archive.get(), Zip().file("a", "content").bytes()).ok());
  base::UniqueFd theirs(dup(archive.get()));
  ASSERT_TRUE(bench.launcher().unpack(5000, std::move(theirs), id, {}).ok());
  ASSERT_TRUE(bench.pump([&] { return content(id, "a") == "content"; }));
  ASSERT_EQ(ftruncate(archive.get(), 0), 0);
  ASSERT_TRUE(kill_unpacker(id));
  EXPECT_TRUE(eventually([&] { return !std::filesystem::exists(bench.config.code_directory + "/" + id); }));
  ASSERT_TRUE(bench.unpack(Zip().file("a", "content").bytes(), id).ok());
  EXPECT_EQ(content(id, "a"), "content");
}

TEST_F(UnpackTest, CodeDeployedAgainOutlivesTheRemovalThatWaitedForItsSandbox) {
  const std::string id = next_id();
  const std::string zip = Zip().file("a", "content").bytes();
  ASSERT_TRUE(bench.unpack(zip, id).ok());
  auto spec = bench.spec(id);
  spec.arguments = {"/bin/sleep", "100"};
  ASSERT_TRUE(bench.start(spec).ok());
  bench.launcher().remove_code(id);
  ASSERT_TRUE(bench.unpack(zip, id).ok());
  bench.launcher().kill(spec.id);
  ASSERT_TRUE(bench.wait_exit(spec.id));
  ASSERT_TRUE(bench.unpack(Zip().file("b", "x").bytes(), next_id()).ok());  // gives a removal its turn
  EXPECT_EQ(content(id, "a"), "content");
}

TEST_F(UnpackTest, ManyAtOnceAreAllUnpacked) {
  constexpr int kArchives = 40;  // more than may be on their way to the disk when answered
  std::vector<std::string> ids;
  int answered = 0;
  for (int i = 0; i < kArchives; ++i) {
    ids.push_back(next_id());
    base::UniqueFd archive(memfd_create("archive", MFD_CLOEXEC));
    ASSERT_TRUE(base::write_all(archive.get(), Zip().file("a", std::to_string(i)).bytes()).ok());
    ASSERT_TRUE(bench.launcher().unpack(1000 + static_cast<std::uint64_t>(i), std::move(archive), ids.back(), {}).ok());
  }
  ASSERT_TRUE(bench.pump([&] {
    answered = static_cast<int>(std::ranges::count_if(ids, [&](const auto& id) { return content(id, "a") != ""; }));
    return answered == kArchives;
  })) << answered;
  for (int i = 0; i < kArchives; ++i) EXPECT_EQ(content(ids[static_cast<std::size_t>(i)], "a"), std::to_string(i));
}

TEST_F(UnpackTest, LeavesNoHalfDirectories) {
  (void)refusal(Zip().file("ok", "x").file("../evil", "x").bytes());
  (void)bench.run("true");  // gives the removal its turn
  bench.close();
  for (const auto& entry : std::filesystem::directory_iterator(bench.config.code_directory))
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
}

}  // namespace
}  // namespace mayfly::sandbox
