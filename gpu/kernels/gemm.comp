#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// c = alpha · op(a) · op(b) + beta · c.
#extension GL_GOOGLE_include_directive : require

#include "common/gemm.glsl"
