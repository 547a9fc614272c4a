#include "base/memory_return.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

// The allocator's, where the program has mimalloc (docs/adr/0015).
extern "C" void mi_collect(bool force) __attribute__((weak));

namespace mayfly::base {
namespace {

// Segments that nobody writes: what is dropped of them is in the file. Writable ones hold relocated pointers.
int forget_pages(dl_phdr_info* object, std::size_t, void*) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const std::uintptr_t start = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    const std::uintptr_t end = (object->dlpi_addr + segment.p_vaddr + segment.p_memsz + page - 1) & ~(page - 1);
    (void)madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);  // NOLINT: addresses of the program's own segments
  }
  return 0;
}

}  // namespace

void return_memory_of_start() {
  if (mi_collect != nullptr)
    mi_collect(true);
  else
    malloc_trim(0);
  dl_iterate_phdr(&forget_pages, nullptr);
}

}  // namespace mayfly::base
