/* SPDX-License-Identifier: MIT */
/* Inside a local APIC: its registers, and its timer between lapic.c and lapic_timer.c. */
#pragma once

#include "devices/lapic.h"
#include "lib/bits.h"

/* Registers: offset in the page / 16, and MSR - 0x800. */
enum { REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_PPR = 0x0a, REG_EOI, REG_LDR = 0x0d, REG_DFR };
enum { REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18, REG_IRR = 0x20, REG_ESR = 0x28, REG_ICR = 0x30, REG_ICR_HI };
enum { REG_LVT_TIMER = 0x32, REG_LVT_THERMAL, REG_LVT_PERF, REG_LVT_LINT0, REG_LVT_LINT1, REG_LVT_ERROR };
enum { REG_INITIAL = 0x38, REG_CURRENT, REG_DIVIDE = 0x3e, REG_SELF_IPI };

#define LAPIC_REGS 64
#define LVT_MASKED 0x10000u
#define SVR_ENABLE 0x100u

static inline u32 *lapic_reg(struct lapic *l, unsigned reg) { return &l->page[reg * 4]; }
static inline u32 lapic_get(const struct lapic *l, unsigned reg) { return atomic_load_relaxed(&l->page[reg * 4]); }
static inline void lapic_put(struct lapic *l, unsigned reg, u32 val) { atomic_store_relaxed(&l->page[reg * 4], val); }
/* Of the register that begins at first, ISR, TMR or IRR, the word with this vector's bit, vector % 32. */
static inline u32 *lapic_word(struct lapic *l, unsigned first, u8 vector) { return lapic_reg(l, first + vector / 32); }

/* By the owner of the APIC. */
void lapic_timer_write(struct lapic *l, unsigned reg, u32 val); /* LVT entry, initial count or divider */
void lapic_timer_set_deadline(struct lapic *l, u64 tsc);
u64 lapic_timer_deadline(const struct lapic *l, u64 now);
u32 lapic_timer_count(const struct lapic *l, u64 now);
void lapic_timer_fired(void *lapic);
