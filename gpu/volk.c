// SPDX-License-Identifier: GPL-3.0-or-later
// Compiles Debian's volk, a loader that opens the Vulkan driver at run time.
#define VOLK_IMPLEMENTATION
#include <volk.h>
