/* SPDX-License-Identifier: MIT */
#include "arch/x86/hvm/exit.h"
#include "arch/x86/hvm/vmx.h"
#include "lib/print.h"
bool vmx_check(const struct vmx_caps *c, const u64 f[FIELDS], char *why, size_t size) { return true; }
void vmx_field_name(unsigned field, char *text, size_t size) { format(text, size, "field %u", field); }
const char *vmx_error_text(u64 error) { return "error"; }
const char *vmx_failure_text(u64 reason, u64 info) { return "invalid guest state"; }
