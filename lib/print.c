/* SPDX-License-Identifier: MIT */
#include "lib/print.h"

#include "lib/port.h"
#include "lib/string.h"

#define LOG_MAX 256

struct out {
	char *buf;
	size_t size, len; /* len counts what did not fit as well */
};

struct spec {
	bool left, zero, alt, wide; /* - 0 #; l, ll, z */
	int width;
	size_t precision; /* how much of a string */
};

static void put(struct out *o, char c)
{
	if (o->len + 1 < o->size)
		o->buf[o->len] = c;
	o->len++;
}

static void pad(struct out *o, char c, int n)
{
	while (n-- > 0)
		put(o, c);
}

static void put_field(struct out *o, const struct spec *s, const char *sign, const char *text, size_t len)
{
	int fill = s->width - (int)(strlen(sign) + len);

	if (!s->left && !s->zero)
		pad(o, ' ', fill);
	while (*sign)
		put(o, *sign++);
	if (!s->left && s->zero)
		pad(o, '0', fill);
	while (len--)
		put(o, *text++);
	if (s->left)
		pad(o, ' ', fill);
}

static void put_number(struct out *o, const struct spec *s, const char *sign, u64 v, unsigned base)
{
	char digits[24], *end = digits + sizeof(digits), *d = end;

	do
		*--d = "0123456789abcdef"[v % base];
	while (v /= base);
	put_field(o, s, sign, d, (size_t)(end - d));
}

static const char *parse_spec(const char *f, struct spec *s, va_list *ap)
{
	*s = (struct spec){.precision = ~0ul};
	for (; *f == '-' || *f == '0' || *f == '#'; f++) {
		s->left |= *f == '-';
		s->zero |= *f == '0';
		s->alt |= *f == '#';
	}
	for (; *f >= '0' && *f <= '9'; f++)
		s->width = s->width * 10 + *f - '0';
	if (f[0] == '.' && f[1] == '*') {
		s->precision = (size_t)va_arg(*ap, int);
		f += 2;
	}
	for (; *f == 'l' || *f == 'z'; f++)
		s->wide = true;
	return f;
}

static void put_conversion(struct out *o, char conv, const struct spec *s, va_list *ap)
{
	if (conv == 'd') {
		s64 v = s->wide ? va_arg(*ap, s64) : va_arg(*ap, int);
		put_number(o, s, v < 0 ? "-" : "", v < 0 ? 0 - (u64)v : (u64)v, 10);
	} else if (conv == 'u' || conv == 'x') {
		u64 v = s->wide ? va_arg(*ap, u64) : va_arg(*ap, unsigned);
		put_number(o, s, s->alt ? "0x" : "", v, conv == 'u' ? 10 : 16);
	} else if (conv == 'c') {
		put_field(o, s, "", &(char){(char)va_arg(*ap, int)}, 1);
	} else if (conv == 's') {
		const char *text = va_arg(*ap, const char *);
		put_field(o, s, "", text ? text : "(null)", strnlen(text ? text : "(null)", s->precision));
	} else { /* "%%", and what is no conversion shows as itself */
		put(o, conv);
	}
}

size_t vformat(char *buf, size_t size, const char *fmt, va_list ap)
{
	struct out o = {buf, size, 0};
	struct spec s;
	va_list args;

	va_copy(args, ap);
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(&o, *fmt);
			continue;
		}
		fmt = parse_spec(fmt + 1, &s, &args);
		if (!*fmt)
			break;
		put_conversion(&o, *fmt, &s, &args);
	}
	va_end(args);
	if (size)
		buf[MIN(o.len, size - 1)] = 0;
	return o.len;
}

size_t format(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	size_t len = vformat(buf, size, fmt, ap);
	va_end(ap);
	return len;
}

void vlog(const char *fmt, va_list ap)
{
	char text[LOG_MAX];
	size_t len = MIN(vformat(text, sizeof(text), fmt, ap), sizeof(text) - 1);

	if (len == sizeof(text) - 1)
		text[len - 1] = '\n';
	port_log(text, len);
}

void log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(fmt, ap);
	va_end(ap);
}
