/* SPDX-License-Identifier: MIT */
/* Assertions are for what only our own bug can break; what the world can break is an error. */
#pragma once

#include "lib/port.h"

#define ASSERT(x)             ((x) ? (void)0 : panic("assertion failed: %s, %s:%d", #x, __FILE__, __LINE__))
#define STATIC_ASSERT(x, why) _Static_assert(x, why)
