/* SPDX-License-Identifier: MIT */
/* Decodes the CMOS clock (MC146818). */
#include "arch/x86/cpu/calibrate.h"

enum { STATUS_24H = 2, STATUS_BINARY = 4, HOUR_PM = 0x80 };

/* BCD to binary; all ones for what is no BCD. */
static u8 number(u8 v, bool binary)
{
	if (binary)
		return v;
	return (v & 15) > 9 || v > 0x99 ? 0xff : (u8)((v >> 4) * 10 + (v & 15));
}

/* 0 to 23, or more for nonsense. */
static u8 hour_of(const struct cmos_time *c)
{
	bool binary = c->status_b & STATUS_BINARY, pm = c->hour & HOUR_PM;

	if (c->status_b & STATUS_24H)
		return number(c->hour, binary);

	u8 hour = number(c->hour & ~HOUR_PM, binary);

	if (hour < 1 || hour > 12)
		return 0xff;
	return (u8)(hour % 12 + (pm ? 12 : 0));
}

bool cmos_decode(const struct cmos_time *c, u64 *seconds)
{
	static const u16 before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	bool binary = c->status_b & STATUS_BINARY;
	u8 second = number(c->second, binary), minute = number(c->minute, binary), hour = hour_of(c);
	u8 day = number(c->day, binary), month = number(c->month, binary), year = number(c->year, binary);

	if (second > 59 || minute > 59 || hour > 23 || day < 1 || day > 31 || month < 1 || month > 12 || year > 99)
		return false;

	/* 2000 to 2099: every fourth year is a leap year. 10957 days from 1970 to 2000. */
	u64 days = 10957 + year * 365ul + (year + 3) / 4 + before[month - 1] + (day - 1u);

	if (year % 4 == 0 && month > 2)
		days++;
	*seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
	return true;
}
