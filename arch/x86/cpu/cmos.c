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

bool cmos_decode(const u8 reg[CMOS_REGS], u64 *seconds)
{
	static const u16 before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	u8 status = reg[CMOS_STATUS_B];
	bool binary = status & STATUS_BINARY;
	u8 second = number(reg[0], binary), minute = number(reg[2], binary), hour = number(reg[4] & ~HOUR_PM, binary);
	u8 day = number(reg[7], binary), month = number(reg[8], binary), year = number(reg[9], binary);

	if (!(status & STATUS_24H)) /* 12 comes before 1 */
		hour = hour > 12 ? 0xff : (u8)(hour % 12 + (reg[4] & HOUR_PM ? 12 : 0));
	if (second > 59 || minute > 59 || hour > 23 || day < 1 || day > 31 || month < 1 || month > 12 || year > 99)
		return false;

	/* 2000 to 2099: every fourth year is a leap year. 10957 days from 1970 to 2000. */
	u64 days = 10957 + year * 365ul + (year + 3) / 4 + before[month - 1] + (day - 1u);

	if (year % 4 == 0 && month > 2)
		days++;
	*seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
	return true;
}
