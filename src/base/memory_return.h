// Memory that a process needed for its start only.
#pragma once

namespace mayfly::base {

// Gives back what the start left behind: free memory of the heap, and the pages of program and libraries that are mapped now. Those
// that are needed later come back from the page cache one after the other, at about 1 us for 64 KiB. Costs about 1 ms; any thread.
void return_memory_of_start();

}  // namespace mayfly::base
