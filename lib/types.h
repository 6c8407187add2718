/* SPDX-License-Identifier: MIT */
/* Fixed-width integers, the frame-number types, and the few macros everything uses. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

/* Addresses: guest virtual, guest physical, host physical. */
typedef u64 gva_t;
typedef u64 gpa_t;
typedef u64 hpa_t;

/* Frame numbers are structs so that handing a guest frame where a machine frame is wanted does not compile. */
typedef struct {
	u64 n;
} gfn_t;
typedef struct {
	u64 n;
} mfn_t;

#define GFN(x)   ((gfn_t){(x)})
#define MFN(x)   ((mfn_t){(x)})
#define MFN_NONE MFN(~0ul)

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ul
#define PAGE_MASK  (~(PAGE_SIZE - 1))

enum { ORDER_4K = 0, ORDER_2M = 9, ORDER_1G = 18 };

static inline gpa_t gfn_to_gpa(gfn_t g) { return g.n << PAGE_SHIFT; }
static inline gfn_t gpa_to_gfn(gpa_t a) { return GFN(a >> PAGE_SHIFT); }
static inline hpa_t mfn_to_hpa(mfn_t m) { return m.n << PAGE_SHIFT; }
static inline mfn_t hpa_to_mfn(hpa_t a) { return MFN(a >> PAGE_SHIFT); }
static inline bool mfn_eq(mfn_t a, mfn_t b) { return a.n == b.n; }

#define ARRAY_SIZE(a)                 (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static inline int min_int(int a, int b) { return a < b ? a : b; }
static inline int max_int(int a, int b) { return a > b ? a : b; }
static inline unsigned min_unsigned(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned max_unsigned(unsigned a, unsigned b) { return a > b ? a : b; }
static inline u64 min_u64(u64 a, u64 b) { return a < b ? a : b; }
static inline u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }

/* For int, unsigned and u64; other mixtures do not compile. */
#define MIN(a, b) _Generic((a) + (b), int : min_int, unsigned : min_unsigned, u64 : min_u64)(a, b)
#define MAX(a, b) _Generic((a) + (b), int : max_int, unsigned : max_unsigned, u64 : max_u64)(a, b)

#define ROUND_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1)) /* a: power of two */
#define ROUND_UP(x, a)   ROUND_DOWN((x) + ((__typeof__(x))(a)-1), a)
#define IS_ALIGNED(x, a) (((x) & ((__typeof__(x))(a)-1)) == 0)

#define PACKED       __attribute__((packed))
#define ALIGNED(n)   __attribute__((aligned(n)))
#define NORETURN     __attribute__((noreturn))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MUST_CHECK   __attribute__((warn_unused_result))
#define FORCE_INLINE static inline __attribute__((always_inline))

#define NS_PER_SECOND 1000000000ul

#define KB 1024ul
#define MB (1024 * KB)
#define GB (1024 * MB)
