/* SPDX-License-Identifier: MIT */
/* Errors are returned as negative values of these; 0 is success. */
#pragma once

enum { EPERM = 1, ENOENT = 2, EIO = 5, EAGAIN = 11, ENOMEM = 12, EFAULT = 14 };
enum { EEXIST = 17, ENODEV = 19, EINVAL = 22, ENOSPC = 28, ENOSYS = 38 };
