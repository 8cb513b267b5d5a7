// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

// Put before the definition of a plain function with a hot loop: it is compiled for plain x86-64, AVX2 and
// AVX-512 and the loader picks one. Sanitizers start after the loader has asked, so their builds keep the
// plain one.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)        \
    && !defined(__SANITIZE_THREAD__)
#define RANKSCOPE_MULTIARCH __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define RANKSCOPE_MULTIARCH
#endif

// Helpers that hot loops call must melt into each of their variants.
#define RANKSCOPE_INLINE inline __attribute__((always_inline))
