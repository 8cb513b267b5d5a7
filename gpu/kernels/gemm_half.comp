#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// The product with a weight kept in float16 (the backend vulkan:INDEX:half).
#extension GL_GOOGLE_include_directive : require
#define HALF

#include "common/gemm.glsl"
