/* SPDX-License-Identifier: MIT */
/*
 * guests.conf, line by line.
 *
 *     text --lines--> "[section]"    picks host, guest or skip (a section that cannot be used: its lines are not read)
 *                     "key = value"  looks the key up in one table, whose parser stores into host or guest
 *
 * The table is the language: a new key is one row. A value's parser returns whether it is good, and the row's "wants"
 * says what is allowed, so that every message is made in one place. Each line is read once and nothing is allocated:
 * linear time for any text.
 */
#include "guest/config.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/print.h"
#include "lib/string.h"

#define MAX_MEMORY (1ul << 46) /* 64 TB: what the hypervisor's direct map reaches */
#define MAX_PATH   255

enum section { NOWHERE, SKIP, HOST, GUEST };
static const char *const section_names[] = {[HOST] = "host", [GUEST] = "guest NAME"};

struct parser {
	struct config *out;
	const char *begin; /* of the current line */
	u32 line;
	enum section section;
	struct guest_config *guest; /* of the current section, or NULL */
	u64 seen;                   /* keys of the section so far, by index */
};

struct key {
	const char *name;
	enum section in;
	u16 field; /* offset in host_config or guest_config */
	u8 bytes;  /* its size */
	bool (*parse)(const struct key *k, struct slice value, void *base);
	u64 min, max;
	u16 step;           /* of numbers: what must divide them; of words: what the index is multiplied with */
	const char *suffix; /* letters that a number may end in */
	const char *wants;  /* for messages; of words: in the order of their values */
};

/* Slices */

static bool blank(char c) { return c == ' ' || c == '\t'; }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
static struct slice slice(const char *s, const char *end) { return (struct slice){s, (u32)(end - s)}; }

static struct slice trim(const char *s, const char *end)
{
	while (s < end && blank(*s))
		s++;
	while (end > s && blank(end[-1]))
		end--;
	return slice(s, end);
}

static bool is(struct slice a, const char *b, size_t len)
{
	for (u32 i = 0; a.len == len && i < len; i++)
		if (lower(a.s[i]) != lower(b[i]))
			return false;
	return a.len == len;
}

static bool is_word(struct slice a, const char *word) { return is(a, word, strlen(word)); }

/* The next item of a list separated by commas or blanks, from *pos on; false at the end. */
static bool next_item(struct slice list, u32 *pos, struct slice *item)
{
	while (*pos < list.len && (list.s[*pos] == ',' || blank(list.s[*pos])))
		++*pos;
	u32 from = *pos;
	while (*pos < list.len && list.s[*pos] != ',' && !blank(list.s[*pos]))
		++*pos;
	*item = (struct slice){list.s + from, *pos - from};
	return item->len > 0;
}

/* How many letters two words have in common at their starts and ends. */
static u32 likeness(struct slice a, const char *word)
{
	u32 len = (u32)strlen(word), most = MIN(a.len, len), start = 0, end = 0;
	while (start < most && lower(a.s[start]) == word[start])
		start++;
	while (end < most && lower(a.s[a.len - 1 - end]) == word[len - 1 - end])
		end++;
	return start + end;
}

/* Errors */

#define SHOW(v) (int)MIN((v).len, 40u), (v).s /* for %.*s: no more than a message can hold */

/* At this place of the current line. */
static PRINTF(3, 4) void complain(struct parser *p, const char *at, const char *fmt, ...)
{
	struct config *c = p->out;
	if (p->guest)
		p->guest->bad = true;
	if (c->errors++ >= CONFIG_MAX_ERRORS)
		return;
	struct parse_error *e = &c->error[c->errors - 1];
	e->line = p->line;
	e->column = (u32)(at - p->begin) + 1;
	va_list ap;
	va_start(ap, fmt);
	vformat(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
}

/* Values */

static bool store(const struct key *k, void *base, u64 v)
{
	memcpy((char *)base + k->field, &v, k->bytes); /* little-endian: the low bytes come first */
	return true;
}

/* Reads a decimal or 0x number at the start of v. Returns how many characters it has; 0: none, or over 64 bits. */
static u32 digits(struct slice v, u64 *out)
{
	static const char digit[] = "0123456789abcdef";
	bool hex = v.len > 2 && v.s[0] == '0' && lower(v.s[1]) == 'x';
	u32 i = hex ? 2 : 0, base = hex ? 16 : 10, from = i;
	const char *d;
	for (*out = 0; i < v.len && (d = memchr(digit, lower(v.s[i]), base), d); i++)
		if (__builtin_mul_overflow(*out, base, out) || __builtin_add_overflow(*out, (u64)(d - digit), out))
			return 0;
	return i == from ? 0 : i;
}

/* A number, perhaps with one letter behind it: k, m, g and t multiply. */
static bool parse_number(const struct key *k, struct slice v, void *base)
{
	static const char units[] = "%kmgt";
	u64 n, shift = 0;
	u32 i = digits(v, &n);
	if (i && i < v.len && memchr(k->suffix, lower(v.s[i]), strlen(k->suffix)))
		shift = 10 * (u64)((const char *)memchr(units, lower(v.s[i++]), sizeof(units)) - units);
	if (!i || i < v.len || n > k->max >> shift || n << shift < k->min || (n << shift) % k->step)
		return false;
	return store(k, base, n << shift);
}

static bool parse_word(const struct key *k, struct slice v, void *base)
{
	struct slice words = {k->wants, (u32)strlen(k->wants)}, word;
	u64 index = 0;
	for (u32 pos = 0; next_item(words, &pos, &word);) {
		if (is_word(word, "or"))
			continue;
		if (is(word, v.s, v.len))
			return store(k, base, index * k->step);
		index++;
	}
	return false;
}

static bool parse_text(const struct key *k, struct slice v, void *base)
{
	if (v.len <= k->max)
		memcpy((char *)base + k->field, &v, sizeof(v));
	return v.len <= k->max;
}

/* No path leads out of the folder, and firmware and GRUB agree about it. */
static bool parse_path(const struct key *k, struct slice v, void *base)
{
	char before = '/';
	for (u32 i = 0; i < v.len; before = v.s[i++])
		if (v.s[i] == '\\' || (before == '/' && (v.s[i] == '/' || v.s[i] == '.')))
			return false;
	return before != '/' && parse_text(k, v, base);
}

static bool parse_initrd(const struct key *k, struct slice v, void *base)
{
	struct guest_config *g = base;
	bool good = g->initrds < CONFIG_MAX_MODULES && parse_path(k, v, &g->initrd[g->initrds]);
	g->initrds += good;
	return good;
}

/* 0-3,8: bits of a mask. */
static bool parse_cpus(const struct key *k, struct slice v, void *base)
{
	struct slice item;
	u64 mask = 0, first, last;
	for (u32 pos = 0; next_item(v, &pos, &item); mask |= BITS(last, first)) {
		const char *dash = memchr(item.s, '-', item.len), *end = item.s + item.len;
		struct slice from = slice(item.s, dash ? dash : end), to = dash ? slice(dash + 1, end) : from;
		if (!from.len || digits(from, &first) < from.len || !to.len || digits(to, &last) < to.len ||
		    last > k->max || first > last)
			return false;
	}
	return mask && store(k, base, mask);
}

static bool parse_console(const struct key *k, struct slice v, void *base)
{
	static const char *const names[] = {"screen", "com1", "com2", "com3", "com4"};
	static const u16 ports[] = {CONSOLE_SCREEN, 0x3f8, 0x2f8, 0x3e8, 0x2e8};
	struct host_config *h = base;
	struct slice item;
	for (u32 pos = 0; next_item(v, &pos, &item);) {
		u64 port = 0;
		bool good = digits(item, &port) == item.len && port >= k->min && port <= k->max;
		for (u32 i = 0; i < ARRAY_SIZE(names) && !good; i++) {
			good = is_word(item, names[i]);
			port = ports[i];
		}
		for (u32 i = 0; i < h->consoles; i++)
			good &= h->console[i] != port;
		if (!good || h->consoles == CONFIG_CONSOLES)
			return false;
		h->console[h->consoles++] = (u16)port;
	}
	return h->consoles > 0;
}

#define HOST_FIELD(f)              HOST, offsetof(struct host_config, f), sizeof(((struct host_config *)0)->f)
#define GUEST_FIELD(f)             GUEST, offsetof(struct guest_config, f), sizeof(((struct guest_config *)0)->f)
#define NUMBER(lo, hi, by, letter) parse_number, lo, hi, by, letter
#define TEXT(parser, longest)      parser, 0, longest, 0, ""
#define WORDS(by)                  parse_word, 0, 0, by, ""
#define PATH                       "a path below the config's folder, without \\, and no part empty or beginning with ."
#define SIZE                       "a size from 1M to 64T such as 512M, in whole 4K pages (bytes without K, M, G or T)"
#define CONSOLES                   "com1 to com4, a port such as 0x3f8, screen, or a list of different ones"

static const struct key keys[] = {
	{"console", HOST_FIELD(console), parse_console, 0x100, 0xfff8, 0, "", CONSOLES},
	{"when-idle", HOST_FIELD(when_idle), WORDS(1), "poweroff, reboot or wait"},
	{"max-page", HOST_FIELD(max_order), WORDS(ORDER_2M), "4K, 2M or 1G"},
	{"mmio-cache", HOST_FIELD(mmio_cache), WORDS(1), "off or on"},
	{"merge", HOST_FIELD(merge), WORDS(1), "off or on"},
	{"collapse", HOST_FIELD(collapse), WORDS(1), "off or on"},
	{"kernel", GUEST_FIELD(kernel), TEXT(parse_path, MAX_PATH), PATH},
	{"initrd", GUEST, 0, 0, TEXT(parse_initrd, MAX_PATH), PATH ", 16 at most"},
	{"cmdline", GUEST_FIELD(cmdline), TEXT(parse_text, CONFIG_CMDLINE_MAX), "at most 2047 bytes"},
	{"memory", GUEST_FIELD(memory), NUMBER(MB, MAX_MEMORY, PAGE_SIZE, "kmgt"), SIZE},
	{"vcpus", GUEST_FIELD(vcpus), NUMBER(1, 64, 1, ""), "a number from 1 to 64"},
	{"cpus", GUEST_FIELD(cpus), parse_cpus, 0, 63, 0, "", "CPU numbers from 0 to 63 such as 0-1,3"},
	{"weight", GUEST_FIELD(weight), NUMBER(1, 65536, 1, ""), "a number from 1 to 65536"},
	{"cap", GUEST_FIELD(cap), NUMBER(0, 100, 1, "%"), "a percentage from 1 to 100, or 0 for none"},
	{"paging", GUEST_FIELD(paging), WORDS(1), "auto, nested or shadow"},
	{"max-page", GUEST_FIELD(max_order), WORDS(ORDER_2M), "4K, 2M or 1G"},
	{"populate", GUEST_FIELD(demand), WORDS(1), "boot or demand"},
	{"on-crash", GUEST_FIELD(restart), WORDS(1), "stop or restart"},
};

/* Sections */

static bool good_name(struct slice name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
	for (u32 i = 0; i < name.len; i++)
		if (!memchr(letters, lower(name.s[i]), sizeof(letters) - 1))
			return false;
	return name.len && name.len <= CONFIG_NAME_MAX;
}

static void open_guest(struct parser *p, struct slice name)
{
	struct config *c = p->out;
	struct guest_config *g = &c->guest[c->guests];
	if (!good_name(name) || c->guests == CONFIG_MAX_GUESTS) {
		complain(p, name.s, "a guest is [guest NAME]: 1 to %d letters, digits, - _ and .; at most %d guests",
			 CONFIG_NAME_MAX, CONFIG_MAX_GUESTS);
		return;
	}
	*g = (struct guest_config){
		.name = name, .vcpus = 1, .cpus = ~0ul, .weight = 256, .max_order = ORDER_1G, .line = p->line};
	c->guests++;
	p->guest = g;
	p->section = GUEST;
	for (const struct guest_config *other = c->guest; other < g && !g->bad; other++)
		if (is(name, other->name.s, other->name.len))
			complain(p, name.s, "a second guest '%.*s', the first is in line %u", SHOW(name), other->line);
}

static void open_section(struct parser *p, struct slice line)
{
	const char *end = memchr(line.s, ']', line.len);
	p->guest = NULL;
	p->section = SKIP;
	p->seen = 0;
	if (!end || end + 1 < line.s + line.len) {
		complain(p, line.s, "a section is [host] or [guest NAME], and nothing behind it");
		return;
	}
	struct slice in = trim(line.s + 1, end), kind;
	u32 pos = 0;
	next_item(in, &pos, &kind);
	if (is_word(kind, "guest"))
		open_guest(p, trim(in.s + pos, end));
	else if (is_word(in, "host"))
		p->section = HOST;
	else
		complain(p, in.s, "unknown section [%.*s]: did you mean [%s]?", SHOW(in),
			 section_names[likeness(in, "host") >= 2 ? HOST : GUEST]);
}

/* Keys */

static void unknown_key(struct parser *p, struct slice name)
{
	const struct key *best = keys;
	u32 most = 0;
	for (const struct key *k = keys; k < keys + ARRAY_SIZE(keys); k++) {
		u32 n = 2 * likeness(name, k->name) + (k->in == p->section); /* may it stand here? */
		if (n > most) {
			most = n;
			best = k;
		}
	}
	complain(p, name.s, "unknown key '%.*s': did you mean '%s' in [%s]?", SHOW(name), best->name,
		 section_names[best->in]);
}

static void set_key(struct parser *p, struct slice name, struct slice value)
{
	const struct key *k = keys, *end = keys + ARRAY_SIZE(keys);
	while (k < end && (k->in != p->section || !is_word(name, k->name)))
		k++;
	if (k == end)
		unknown_key(p, name);
	else if ((p->seen & BIT(k - keys)) && k->parse != parse_initrd)
		complain(p, name.s, "a second '%s' in this section", k->name);
	else if ((!value.len && k->parse != parse_text) ||
		 !k->parse(k, value, p->section == HOST ? (void *)&p->out->host : p->guest))
		complain(p, value.s, "'%s' wants %s; not '%.*s'", k->name, k->wants, SHOW(value));
	p->seen |= BIT(k - keys);
}

static void parse_line(struct parser *p, const char *end)
{
	const char *s = p->begin;
	while (s < end && (*s != '#' || (s > p->begin && !blank(s[-1]))))
		s++;
	struct slice line = trim(p->begin, s);
	const char *eq = memchr(line.s, '=', line.len);
	if (!line.len || (p->section == SKIP && line.s[0] != '['))
		return;
	if (line.s[0] == '[')
		open_section(p, line);
	else if (!eq)
		complain(p, line.s, "neither 'key = value' nor a [section]");
	else if (p->section == NOWHERE)
		complain(p, line.s, "put this under [host] or [guest NAME]");
	else
		set_key(p, trim(line.s, eq), trim(eq + 1, line.s + line.len));
}

/* The whole */

/* The first control character in a line that is not a tab; its end if it is text. */
static const char *control(const char *s, const char *end)
{
	while (s < end && ((u8)*s >= ' ' || *s == '\t') && *s != 0x7f)
		s++;
	return s;
}

static int finish(struct parser *p)
{
	struct config *c = p->out;
	u32 startable = 0;
	for (struct guest_config *g = c->guest; g < c->guest + c->guests; g++) {
		const char *missing = !g->kernel.len ? "kernel" : !g->memory ? "memory" : NULL;
		p->guest = g;
		p->line = g->line;
		if (missing && !g->bad)
			complain(p, p->begin, "this guest has no '%s': add it", missing);
		g->max_order = (u8)MIN(g->max_order, c->host.max_order);
		startable += !g->bad;
	}
	if (!c->guests && !c->errors)
		complain(p, p->begin, "no guest: add a section [guest NAME] with 'kernel' and 'memory'");
	return startable ? 0 : -EINVAL;
}

int config_parse(const char *text, size_t len, struct config *out)
{
	struct parser p = {.out = out, .begin = text, .line = 1, .section = NOWHERE};
	const char *end = text + len, *next;
	*out = (struct config){.host = {.max_order = ORDER_1G, .mmio_cache = true, .merge = true, .collapse = true}};
	if (len > CONFIG_MAX_TEXT) {
		complain(&p, text, "the file has %zu bytes; a config has at most %u", len, CONFIG_MAX_TEXT);
		return -EINVAL;
	}
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	for (p.begin = text; p.begin < end; p.begin = next, p.line++) {
		const char *nl = memchr(p.begin, '\n', (size_t)(end - p.begin)), *stop = nl ? nl : end;
		next = nl ? nl + 1 : end;
		if (stop > p.begin && stop[-1] == '\r')
			stop--;
		const char *bad = control(p.begin, stop);
		if (bad < stop) {
			*out = (struct config){.guests = 0};
			p.guest = NULL;
			complain(&p, bad, "not a text file: it has a byte %#04x here", (u8)*bad);
			return -EINVAL;
		}
		parse_line(&p, stop);
	}
	return finish(&p);
}

size_t config_error_text(const struct config *c, unsigned i, const char *file, char *buf, size_t size)
{
	const struct parse_error *e = &c->error[i];
	return format(buf, size, "%s:%u:%u: %s", file, e->line, e->column, e->text);
}
