/* SPDX-License-Identifier: MIT */
/*
 * guests.conf, line by line.
 *
 *     text --lines--> "[section]"    picks host, guest or skip (a section that cannot be used: its lines are not read)
 *                     "key = value"  looks the key up in one table, whose parser stores into host or guest
 *
 * The table is the language: a new key is one row. A value's parser returns where in the value it went wrong, and the
 * row's "wants" says what is allowed, so that every message is made in one place. Each line is read once, nothing is
 * allocated, and costly help (the nearest key) is only worked out for errors that are kept: linear time for any text.
 */
#include "guest/config.h"
#include "lib/bits.h"
#include "lib/errno.h"
#include "lib/print.h"
#include "lib/string.h"

#define MAX_MEMORY (1ul << 46) /* 64 TB: what the hypervisor's direct map reaches */
#define MAX_PATH   255
#define MAX_WORD   16   /* of keys and section names */
#define INHERIT    0xff /* guest.max_order until the host's is known */

enum section { NOWHERE, SKIP, HOST, GUEST };

struct parser {
	struct config *out;
	const char *begin; /* of the current line */
	u32 line;
	enum section section;
	struct guest_config *guest; /* of the current section, or NULL */
	u64 seen;                   /* keys of the section so far, by index */
	bool host_seen;
};

#define OK (-1)

struct key {
	const char *name;
	enum section in;
	u16 field; /* offset in host_config or guest_config */
	u8 bytes;  /* its size */
	bool needed;
	s32 (*parse)(const struct key *k, struct slice value, void *base); /* OK or the offset of the mistake */
	u64 min, max;
	u16 step;           /* of numbers: what must divide them; of words: what the index is multiplied with */
	const char *suffix; /* letters that a number may end in */
	const char *words[3];
	const char *wants;
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

/* Levenshtein's distance to a word of at most MAX_WORD letters. */
static unsigned distance(struct slice a, const char *word)
{
	unsigned row[MAX_WORD + 1], len = (unsigned)strlen(word);
	for (unsigned j = 0; j <= len; j++)
		row[j] = j;
	for (unsigned i = 0; i < a.len; i++) {
		unsigned diagonal = row[0];
		row[0] = i + 1;
		for (unsigned j = 1; j <= len; j++) {
			unsigned change = diagonal + (lower(a.s[i]) != word[j - 1]);
			diagonal = row[j];
			row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[len];
}

/* Errors */

#define SHOW(v) (int)MIN((v).len, 40u), (v).s /* for %.*s: no more than a message can hold */

static void complain(struct parser *p, u32 line, const char *at, const char *fmt, ...) PRINTF(4, 5);
static void complain(struct parser *p, u32 line, const char *at, const char *fmt, ...)
{
	struct config *c = p->out;
	if (p->guest)
		p->guest->bad = true;
	if (c->errors++ >= CONFIG_MAX_ERRORS)
		return;
	struct parse_error *e = &c->error[c->errors - 1];
	e->line = line;
	e->column = !line ? 0 : line == p->line ? (u32)(at - p->begin) + 1 : 1;
	if (p->guest)
		e->guest = p->guest->name;
	va_list ap;
	va_start(ap, fmt);
	vformat(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
}

/* Values */

static void store(const struct key *k, void *base, u64 v)
{
	memcpy((char *)base + k->field, &v, k->bytes); /* little-endian: the low bytes come first */
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
static s32 parse_number(const struct key *k, struct slice v, void *base)
{
	static const char units[] = "%kmgt";
	u64 n, shift = 0;
	u32 i = digits(v, &n);
	if (i && i < v.len && memchr(k->suffix, lower(v.s[i]), strlen(k->suffix)))
		shift = 10 * (u64)((const char *)memchr(units, lower(v.s[i++]), sizeof(units)) - units);
	if (!i || i < v.len)
		return (s32)i;
	if (n > k->max >> shift || n << shift < k->min || (n << shift) % k->step)
		return 0;
	store(k, base, n << shift);
	return OK;
}

static s32 parse_word(const struct key *k, struct slice v, void *base)
{
	for (u32 i = 0; i < ARRAY_SIZE(k->words) && k->words[i]; i++)
		if (is_word(v, k->words[i])) {
			store(k, base, i * k->step);
			return OK;
		}
	return 0;
}

static s32 parse_text(const struct key *k, struct slice v, void *base)
{
	if (v.len > k->max)
		return (s32)k->max;
	memcpy((char *)base + k->field, &v, sizeof(v));
	return OK;
}

/* Every component must be a real name: so no path leads out of the folder, and firmware and GRUB agree about it. */
static s32 parse_path(const struct key *k, struct slice v, void *base)
{
	for (u32 i = 0, start = 0; i <= v.len; i++) {
		if (i < v.len && v.s[i] == '\\')
			return (s32)i;
		if (i < v.len && v.s[i] != '/')
			continue;
		struct slice part = {v.s + start, i - start};
		if (!part.len || is_word(part, ".") || is_word(part, ".."))
			return (s32)start;
		start = i + 1;
	}
	return parse_text(k, v, base);
}

static s32 parse_initrd(const struct key *k, struct slice v, void *base)
{
	struct guest_config *g = base;
	if (g->initrds == CONFIG_MAX_MODULES)
		return 0;
	s32 at = parse_path(k, v, &g->initrd[g->initrds]);
	g->initrds += at == OK;
	return at;
}

/* 0-3,8: bits of a mask. */
static s32 parse_cpus(const struct key *k, struct slice v, void *base)
{
	struct slice item;
	u64 mask = 0, first, last;
	for (u32 pos = 0; next_item(v, &pos, &item);) {
		u32 n = digits(item, &first), m = 0;
		if (n && n < item.len && item.s[n] == '-')
			m = digits(slice(item.s + n + 1, item.s + item.len), &last) + 1;
		else
			last = first;
		if (!n || m == 1 || n + m < item.len || last > k->max || first > last)
			return (s32)(item.s - v.s);
		mask |= BITS(last, first);
	}
	if (!mask)
		return 0;
	store(k, base, mask);
	return OK;
}

static s32 parse_console(const struct key *k, struct slice v, void *base)
{
	static const char *const names[CONFIG_CONSOLES] = {"screen", "com1", "com2", "com3", "com4"};
	static const u16 ports[CONFIG_CONSOLES] = {0, 0x3f8, 0x2f8, 0x3e8, 0x2e8};
	struct host_config *h = base;
	struct slice item;
	for (u32 pos = 0; next_item(v, &pos, &item);) {
		u64 port = 0;
		bool good = digits(item, &port) == item.len && port >= k->min && port <= k->max;
		for (u32 i = 0; i < CONFIG_CONSOLES; i++)
			if (is_word(item, names[i])) {
				port = ports[i];
				good = true;
			}
		for (u32 i = 0; i < h->consoles; i++)
			good &= h->console[i].port != port;
		if (!good || h->consoles == CONFIG_CONSOLES)
			return (s32)(item.s - v.s);
		h->console[h->consoles++] = (struct console_choice){port ? CONSOLE_SERIAL : CONSOLE_SCREEN, (u16)port};
	}
	return h->consoles ? OK : 0;
}

#define HOST_FIELD(f)  HOST, offsetof(struct host_config, f), sizeof(((struct host_config *)0)->f)
#define GUEST_FIELD(f) GUEST, offsetof(struct guest_config, f), sizeof(((struct guest_config *)0)->f)
#define WORDS          .parse = parse_word, .step = 1, .words
#define PAGES          .parse = parse_word, .step = ORDER_2M, .words = {"4K", "2M", "1G"}, .wants = "1G, 2M or 4K"
#define NUMBER         .parse = parse_number, .step = 1, .suffix = "", .min = 1, .max
#define PATH           "a path below the config's folder, without leading /, //, ., .. or \\"
#define SIZE           "a size from 1M to 64T such as 512M, in whole 4K pages (bytes without K, M, G or T)"
#define CONSOLES       "com1 to com4, a port such as 0x3f8, screen, or a list of different ones"

static const struct key keys[] = {
	{"console", HOST_FIELD(console), .parse = parse_console, .min = 0x100, .max = 0xfff8, .wants = CONSOLES},
	{"when-idle", HOST_FIELD(when_idle), WORDS = {"poweroff", "reboot", "wait"},
	 .wants = "poweroff, reboot or wait"},
	{"max-page", HOST_FIELD(max_order), PAGES},
	{"mmio-cache", HOST_FIELD(mmio_cache), WORDS = {"off", "on"}, .wants = "on or off"},
	{"kernel", GUEST_FIELD(kernel), .needed = true, .parse = parse_path, .max = MAX_PATH, .wants = PATH},
	{"initrd", GUEST, 0, 0, .parse = parse_initrd, .max = MAX_PATH, .wants = PATH ", 16 at most"},
	{"cmdline", GUEST_FIELD(cmdline), .parse = parse_text, .max = CONFIG_CMDLINE_MAX,
	 .wants = "at most 2047 bytes"},
	{"memory", GUEST_FIELD(memory), .needed = true, .parse = parse_number, .min = MB, .max = MAX_MEMORY,
	 .step = PAGE_SIZE, .suffix = "kmgt", .wants = SIZE},
	{"vcpus", GUEST_FIELD(vcpus), NUMBER = 64, .wants = "a number from 1 to 64"},
	{"cpus", GUEST_FIELD(cpus), .parse = parse_cpus, .max = 63, .wants = "CPU numbers from 0 to 63 such as 0-1,3"},
	{"weight", GUEST_FIELD(weight), NUMBER = 65536, .wants = "a number from 1 to 65536"},
	{"cap", GUEST_FIELD(cap), .parse = parse_number, .max = 100, .step = 1, .suffix = "%",
	 .wants = "a percentage from 1 to 100, or 0 for none"},
	{"paging", GUEST_FIELD(paging), WORDS = {"auto", "nested", "shadow"}, .wants = "auto, nested or shadow"},
	{"max-page", GUEST_FIELD(max_order), PAGES},
	{"populate", GUEST_FIELD(demand), WORDS = {"boot", "demand"}, .wants = "boot or demand"},
	{"on-crash", GUEST_FIELD(restart), WORDS = {"stop", "restart"}, .wants = "restart or stop"},
};

/* Sections */

static void close_section(struct parser *p)
{
	for (u32 i = 0; p->guest && i < ARRAY_SIZE(keys); i++)
		if (keys[i].needed && !(p->seen & BIT(i)))
			complain(p, p->guest->line, p->begin, "this guest has no '%s': add a line '%s = ...'",
				 keys[i].name, keys[i].name);
	p->guest = NULL;
	p->section = SKIP;
	p->seen = 0;
}

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
	if (!good_name(name) || c->guests == CONFIG_MAX_GUESTS) {
		complain(
			p, p->line, name.s,
			"a guest is [guest NAME]: letters, digits, - _ and ., at most %d of them; and at most %d guests",
			CONFIG_NAME_MAX, CONFIG_MAX_GUESTS);
		return;
	}
	struct guest_config *g = &c->guest[c->guests++];
	*g = (struct guest_config){
		.name = name, .vcpus = 1, .cpus = ~0ul, .weight = 256, .max_order = INHERIT, .line = p->line};
	p->guest = g;
	p->section = GUEST;
	for (const struct guest_config *other = c->guest; other < g; other++)
		if (is(name, other->name.s, other->name.len)) {
			complain(p, p->line, name.s,
				 "a second guest '%.*s', the first is in line %u: give this one another name",
				 SHOW(name), other->line);
			return;
		}
}

static void open_section(struct parser *p, struct slice line)
{
	close_section(p);
	const char *end = memchr(line.s, ']', line.len);
	if (!end || end + 1 < line.s + line.len) {
		complain(p, p->line, line.s, "a section is [host] or [guest NAME], and nothing behind it");
		return;
	}
	struct slice in = trim(line.s + 1, end), kind = {in.s, 0};
	while (kind.len < in.len && !blank(kind.s[kind.len]))
		kind.len++;
	if (is_word(kind, "guest"))
		open_guest(p, trim(kind.s + kind.len, end));
	else if (!is_word(in, "host"))
		complain(p, p->line, in.s, "unknown section [%.*s]: did you mean [%s]?", SHOW(in),
			 distance(in, "host") <= 2 ? "host" : "guest NAME");
	else if (p->host_seen)
		complain(p, p->line, in.s, "a second [host] section: put its lines into the first");
	else
		p->section = HOST;
	p->host_seen |= p->section == HOST;
}

/* Keys */

static void unknown_key(struct parser *p, struct slice name)
{
	const struct key *best = NULL;
	unsigned least = ~0u;
	for (u32 i = 0; p->out->errors < CONFIG_MAX_ERRORS && i < ARRAY_SIZE(keys); i++) {
		unsigned d = 2 * distance(name, keys[i].name) + (keys[i].in != p->section); /* may it stand here? */
		if (d < least) {
			least = d;
			best = &keys[i];
		}
	}
	complain(p, p->line, name.s, "unknown key '%.*s' in a [%s] section: did you mean '%s'%s?", SHOW(name),
		 p->section == HOST ? "host" : "guest", best ? best->name : "",
		 !best || best->in == p->section ? ""
		 : best->in == HOST              ? " in [host]"
						 : " in [guest NAME]");
}

static void set_key(struct parser *p, const struct key *k, struct slice name, struct slice value)
{
	u64 bit = BIT(k - keys);
	s32 wrong = OK;
	if ((p->seen & bit) && k->parse != parse_initrd)
		complain(p, p->line, name.s, "a second '%s' in this section", k->name);
	else if (!value.len && k->parse != parse_text)
		wrong = 0;
	else
		wrong = k->parse(k, value, p->section == HOST ? (void *)&p->out->host : p->guest);
	if (wrong != OK)
		complain(p, p->line, value.s + wrong, "'%s' wants %s; not '%.*s'", k->name, k->wants, SHOW(value));
	p->seen |= bit;
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
	if (line.s[0] == '[') {
		open_section(p, line);
		return;
	}
	if (!eq || p->section == NOWHERE) {
		complain(p, p->line, line.s,
			 eq ? "this stands before the first section: put it under [host] or [guest NAME]"
			    : "neither 'key = value' nor a [section]");
		return;
	}
	struct slice name = trim(line.s, eq), value = trim(eq + 1, line.s + line.len);
	for (const struct key *k = keys; k < keys + ARRAY_SIZE(keys); k++)
		if (k->in == p->section && is_word(name, k->name)) {
			set_key(p, k, name, value);
			return;
		}
	unknown_key(p, name);
}

/* The whole */

/* Reads a line, but first looks whether it is text: no control characters but tabs. */
static bool check_line(struct parser *p, const char *end)
{
	for (const char *s = p->begin; s < end; s++) {
		if (((u8)*s >= ' ' || *s == '\t') && *s != 0x7f)
			continue;
		*p->out = (struct config){.guests = 0};
		p->guest = NULL;
		complain(p, p->line, s, "not a text file: it has a byte %#04x here", (u8)*s);
		return false;
	}
	parse_line(p, end);
	return true;
}

static int finish(struct parser *p)
{
	struct config *c = p->out;
	u32 startable = 0;
	close_section(p);
	for (struct guest_config *g = c->guest; g < c->guest + c->guests; g++) {
		g->max_order = (u8)MIN(g->max_order, c->host.max_order);
		startable += !g->bad;
	}
	if (!c->guests && !c->errors)
		complain(p, 0, NULL, "no guest: add a section [guest NAME] with 'kernel' and 'memory'");
	return startable ? 0 : -EINVAL;
}

int config_parse(const char *text, size_t len, struct config *out)
{
	struct parser p = {.out = out, .section = NOWHERE};
	const char *end = text + len, *next;
	*out = (struct config){.host = {.max_order = ORDER_1G, .mmio_cache = true}};
	if (len > CONFIG_MAX_TEXT) {
		complain(&p, 0, NULL, "the file has %zu bytes; a config has at most %u", len, CONFIG_MAX_TEXT);
		return -EINVAL;
	}
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	for (p.begin = text; p.begin < end; p.begin = next) {
		const char *nl = memchr(p.begin, '\n', (size_t)(end - p.begin)), *stop = nl ? nl : end;
		next = nl ? nl + 1 : end;
		p.line++;
		if (!check_line(&p, stop > p.begin && stop[-1] == '\r' ? stop - 1 : stop))
			return -EINVAL;
	}
	return finish(&p);
}

size_t config_error_text(const struct config *c, unsigned i, const char *file, char *buf, size_t size)
{
	if (i >= MIN(c->errors, (unsigned)CONFIG_MAX_ERRORS))
		return format(buf, size, "%s: more errors", file);
	const struct parse_error *e = &c->error[i];
	if (!e->line)
		return format(buf, size, "%s: %s", file, e->text);
	return format(buf, size, "%s:%u:%u: %s", file, e->line, e->column, e->text);
}
