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
	bool left, zero, alt, precise;
	int width, precision;
	bool wide; /* l, ll, z */
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

static void put_field(struct out *o, const struct spec *s, const char *text, int len)
{
	if (!s->left)
		pad(o, ' ', s->width - len);
	for (int i = 0; i < len; i++)
		put(o, text[i]);
	if (s->left)
		pad(o, ' ', s->width - len);
}

static void put_number(struct out *o, const struct spec *s, u64 v, unsigned base, bool negative)
{
	char digits[24];
	int n = 0;

	do {
		unsigned d = (unsigned)(v % base);
		digits[n++] = (char)(d < 10 ? '0' + d : 'a' + d - 10);
		v /= base;
	} while (v);

	const char *sign = negative ? "-" : s->alt && base == 16 ? "0x" : "";
	int prefix = (int)strlen(sign);
	int zeros = s->precise ? s->precision - n : s->zero && !s->left ? s->width - n - prefix : 0;
	int total = n + prefix + MAX(zeros, 0);

	if (!s->left)
		pad(o, ' ', s->width - total);
	while (*sign)
		put(o, *sign++);
	pad(o, '0', zeros);
	while (n)
		put(o, digits[--n]);
	if (s->left)
		pad(o, ' ', s->width - total);
}

static const char *parse_spec(const char *f, struct spec *s, va_list *ap)
{
	*s = (struct spec){0};
	for (; *f == '-' || *f == '0' || *f == '#'; f++) {
		s->left |= *f == '-';
		s->zero |= *f == '0';
		s->alt |= *f == '#';
	}
	if (*f == '*') {
		s->width = va_arg(*ap, int);
		f++;
	}
	for (; *f >= '0' && *f <= '9'; f++)
		s->width = s->width * 10 + *f - '0';
	if (*f == '.') {
		s->precise = true;
		if (*++f == '*') {
			s->precision = va_arg(*ap, int);
			f++;
		}
		for (; *f >= '0' && *f <= '9'; f++)
			s->precision = s->precision * 10 + *f - '0';
	}
	for (; *f == 'l' || *f == 'z'; f++)
		s->wide = true;
	return f;
}

static void put_conversion(struct out *o, char conv, struct spec *s, va_list *ap)
{
	switch (conv) {
	case 'd': {
		s64 v = s->wide ? va_arg(*ap, s64) : va_arg(*ap, int);
		put_number(o, s, v < 0 ? 0 - (u64)v : (u64)v, 10, v < 0);
		break;
	}
	case 'u':
	case 'x': {
		u64 v = s->wide ? va_arg(*ap, u64) : va_arg(*ap, unsigned);
		put_number(o, s, v, conv == 'u' ? 10 : 16, false);
		break;
	}
	case 'p':
		s->alt = true;
		put_number(o, s, (u64)va_arg(*ap, void *), 16, false);
		break;
	case 'c': {
		char c = (char)va_arg(*ap, int);
		put_field(o, s, &c, 1);
		break;
	}
	case 's': {
		const char *text = va_arg(*ap, const char *);
		if (!text)
			text = "(null)";
		put_field(o, s, text, (int)(s->precise ? strnlen(text, (size_t)s->precision) : strlen(text)));
		break;
	}
	default: /* "%%", and what is no conversion shows as itself */
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
