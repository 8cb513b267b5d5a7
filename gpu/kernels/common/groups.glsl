// SPDX-License-Identifier: GPL-3.0-or-later
// More groups than one dimension may have are spread over two.
uint group_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }
uint thread_index() { return group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex; }
uint thread_count() { return gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_WorkGroupSize.x; }
