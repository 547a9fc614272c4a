// How many files this process may have open.
#pragma once

namespace mayfly::base {

// Raises the limit as far as the system lets this process: with CAP_SYS_RESOURCE to 1,048,576 (the kernel's fs.nr_open where that is
// less), else to the hard limit. Children inherit it, so programs of others must be given theirs.
void raise_descriptor_limit();

}  // namespace mayfly::base
