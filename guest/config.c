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
#define INHERIT    0xff /* guest.max_order until the host's is known */

enum section { NOWHERE, SKIP, HOST, GUEST };

struct parser {
	struct config *out;
	const char *begin; /* of the current line */
	u32 line;
	enum section section;
	struct guest_config *guest; /* of the current section, or NULL */
	u32 seen;                   /* keys of the section so far, by index */
	bool host_seen;
};

struct key {
	const char *name;
	enum section in;
	u16 field; /* offset in host_config or guest_config */
	u8 bytes;  /* its size */
	bool needed;
	u16 step; /* of numbers: what must divide them; of words: what the index is multiplied with */
	s32 (*parse)(const struct key *k, struct slice value, void *base); /* OK or the offset of the mistake */
	u64 min, max;
	const char *suffix;
	const char *words[3];
	const char *wants;
};

#define OK (-1)

/* Slices */

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
static bool digit(char c) { return c >= '0' && c <= '9'; }

static struct slice trim(const char *s, const char *end)
{
	while (s < end && blank(*s))
		s++;
	while (end > s && blank(end[-1]))
		end--;
	return (struct slice){s, (u32)(end - s)};
}

static bool same(struct slice a, struct slice b)
{
	if (a.len != b.len)
		return false;
	for (u32 i = 0; i < a.len; i++)
		if (lower(a.s[i]) != lower(b.s[i]))
			return false;
	return true;
}

static struct slice slice_of(const char *s) { return (struct slice){s, (u32)strlen(s)}; }

/* The next item of a list separated by commas or blanks, from *pos on; len 0 at the end. */
static struct slice next_item(struct slice list, u32 *pos)
{
	u32 i = *pos;
	while (i < list.len && (list.s[i] == ',' || blank(list.s[i])))
		i++;
	u32 from = i;
	while (i < list.len && list.s[i] != ',' && !blank(list.s[i]))
		i++;
	*pos = i;
	return (struct slice){list.s + from, i - from};
}

/* Errors */

struct quoted {
	char s[44];
};

/* The text for a message: cut where it is long. */
static struct quoted quote(struct slice v)
{
	struct quoted q;
	u32 n = MIN(v.len, (u32)sizeof(q.s) - 4);
	memcpy(q.s, v.s, n);
	memcpy(q.s + n, v.len > n ? "..." : "", v.len > n ? 4 : 1);
	return q;
}

static u32 column(const struct parser *p, const char *at) { return (u32)(at - p->begin) + 1; }

static void complain(struct parser *p, u32 line, u32 col, const char *fmt, ...) PRINTF(4, 5);
static void complain(struct parser *p, u32 line, u32 col, const char *fmt, ...)
{
	struct config *c = p->out;
	if (p->guest)
		p->guest->bad = true;
	if (c->errors++ >= CONFIG_MAX_ERRORS)
		return;
	struct parse_error *e = &c->error[c->errors - 1];
	e->line = line;
	e->column = col;
	e->guest = p->guest ? p->guest->name : (struct slice){NULL, 0};
	va_list ap;
	va_start(ap, fmt);
	vformat(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
}

#define NAME_MAX 16 /* of keys and section names */

/* Levenshtein's distance, for words of which one is at most NAME_MAX long. */
static unsigned distance(struct slice a, const char *b)
{
	unsigned row[NAME_MAX + 1], len = (unsigned)strlen(b);
	for (unsigned j = 0; j <= len; j++)
		row[j] = j;
	for (unsigned i = 0; i < a.len; i++) {
		unsigned diagonal = row[0];
		row[0] = i + 1;
		for (unsigned j = 1; j <= len; j++) {
			unsigned change = diagonal + (lower(a.s[i]) != b[j - 1]);
			unsigned shift = MIN(row[j], row[j - 1]) + 1;
			diagonal = row[j];
			row[j] = MIN(change, shift);
		}
	}
	return row[len];
}

static bool resembles(struct slice word, unsigned d) { return d <= 1 + word.len / 3; }

/* Values */

static void store(const struct key *k, void *base, u64 v)
{
	memcpy((char *)base + k->field, &v, k->bytes); /* little-endian: the low bytes come first */
}

/* Reads a decimal or 0x number at the start of v. Returns how many characters it has; 0: none, or over 64 bits. */
static u32 digits(struct slice v, u64 *out)
{
	unsigned base = v.len > 2 && v.s[0] == '0' && lower(v.s[1]) == 'x' ? 16 : 10;
	u32 i = base == 16 ? 2 : 0, from = i;
	for (*out = 0; i < v.len; i++) {
		char c = lower(v.s[i]);
		unsigned d = digit(c) ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : 16;
		if (d >= base)
			break;
		if (__builtin_mul_overflow(*out, base, out) || __builtin_add_overflow(*out, d, out))
			return 0;
	}
	return i == from ? 0 : i;
}

/* A number, perhaps with one suffix letter: K, M, G, T multiply, % says nothing new. */
static s32 parse_number(const struct key *k, struct slice v, void *base)
{
	static const char units[] = "%kmgt";
	u64 n;
	unsigned shift = 0;
	u32 i = digits(v, &n);
	if (i && i < v.len && memchr(k->suffix, lower(v.s[i]), strlen(k->suffix))) {
		shift = 10 * (unsigned)((const char *)memchr(units, lower(v.s[i]), sizeof(units)) - units);
		i++;
	}
	if (!i || i < v.len)
		return (s32)i;
	if (n > k->max >> shift || n << shift < k->min || (n << shift) % k->step)
		return 0;
	store(k, base, n << shift);
	return OK;
}

static s32 parse_word(const struct key *k, struct slice v, void *base)
{
	for (unsigned i = 0; i < ARRAY_SIZE(k->words) && k->words[i]; i++)
		if (same(v, slice_of(k->words[i]))) {
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
		if (!part.len || same(part, slice_of(".")) || same(part, slice_of("..")))
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
	u64 mask = 0;
	for (u32 pos = 0; item = next_item(v, &pos), item.len;) {
		u64 first, last;
		u32 n = digits(item, &first);
		last = first;
		if (n && n < item.len && item.s[n] == '-') {
			struct slice rest = {item.s + n + 1, item.len - n - 1};
			u32 m = digits(rest, &last);
			n = m ? n + 1 + m : 0;
		}
		if (!n || n < item.len || last > k->max || first > last)
			return (s32)(item.s - v.s);
		mask |= ~0ul >> (63 - (last - first)) << first;
	}
	if (!mask)
		return 0;
	store(k, base, mask);
	return OK;
}

static s32 parse_console(const struct key *k, struct slice v, void *base)
{
	static const u16 com[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
	struct host_config *h = base;
	struct slice item;
	for (u32 pos = 0; item = next_item(v, &pos), item.len;) {
		u64 port = 0;
		struct slice name = {item.s, 3};
		if (item.len == 4 && same(name, slice_of("com")) && item.s[3] >= '1' && item.s[3] <= '4')
			port = com[item.s[3] - '1'];
		else if (!same(item, slice_of("screen")) &&
			 (digits(item, &port) != item.len || port < k->min || port > k->max))
			return (s32)(item.s - v.s);
		struct console_choice c = {port ? CONSOLE_SERIAL : CONSOLE_SCREEN, (u16)port};
		for (unsigned i = 0; i < h->consoles; i++)
			if (h->console[i].port == c.port)
				return (s32)(item.s - v.s);
		if (h->consoles == CONFIG_CONSOLES)
			return (s32)(item.s - v.s);
		h->console[h->consoles++] = c;
	}
	return h->consoles ? OK : 0;
}

#define HOST_FIELD(f)  HOST, offsetof(struct host_config, f), sizeof(((struct host_config *)0)->f)
#define GUEST_FIELD(f) GUEST, offsetof(struct guest_config, f), sizeof(((struct guest_config *)0)->f)
#define WORDS          .parse = parse_word, .step = 1, .words
#define PAGES          .parse = parse_word, .step = ORDER_2M, .words = {"4K", "2M", "1G"}, .wants = "1G, 2M or 4K"
#define PATH           "a path below the config's folder, without leading /, //, ., .. or \\"

static const struct key keys[] = {
	{"console", HOST_FIELD(console), .parse = parse_console, .min = 0x100, .max = 0xfff8,
	 .wants = "com1 to com4, a port such as 0x3f8, screen, or a list of different ones"},
	{"when-idle", HOST_FIELD(when_idle), WORDS = {"poweroff", "reboot", "wait"},
	 .wants = "poweroff, reboot or wait"},
	{"max-page", HOST_FIELD(max_order), PAGES},
	{"mmio-cache", HOST_FIELD(mmio_cache), WORDS = {"off", "on"}, .wants = "on or off"},
	{"kernel", GUEST_FIELD(kernel), .parse = parse_path, .max = MAX_PATH, .needed = true, .wants = PATH},
	{"initrd", GUEST, 0, 0, .parse = parse_initrd, .max = MAX_PATH, .wants = PATH ", 16 at most"},
	{"cmdline", GUEST_FIELD(cmdline), .parse = parse_text, .max = CONFIG_CMDLINE_MAX,
	 .wants = "at most 2047 bytes"},
	{"memory", GUEST_FIELD(memory), .parse = parse_number, .min = MB, .max = MAX_MEMORY, .step = PAGE_SIZE,
	 .suffix = "kmgt", .needed = true,
	 .wants = "a size from 1M to 64T such as 512M, in whole 4K pages (bytes without K, M, G or T)"},
	{"vcpus", GUEST_FIELD(vcpus), .parse = parse_number, .min = 1, .max = 64, .step = 1, .suffix = "",
	 .wants = "a number from 1 to 64"},
	{"cpus", GUEST_FIELD(cpus), .parse = parse_cpus, .max = 63, .wants = "CPU numbers from 0 to 63 such as 0-1,3"},
	{"weight", GUEST_FIELD(weight), .parse = parse_number, .min = 1, .max = 65536, .step = 1, .suffix = "",
	 .wants = "a number from 1 to 65536"},
	{"cap", GUEST_FIELD(cap), .parse = parse_number, .max = 100, .step = 1, .suffix = "%",
	 .wants = "a percentage from 1 to 100, or 0 for none"},
	{"paging", GUEST_FIELD(paging), WORDS = {"auto", "nested", "shadow"}, .wants = "auto, nested or shadow"},
	{"max-page", GUEST_FIELD(max_order), PAGES},
	{"populate", GUEST_FIELD(demand), WORDS = {"boot", "demand"}, .wants = "boot or demand"},
	{"on-crash", GUEST_FIELD(restart), WORDS = {"stop", "restart"}, .wants = "restart or stop"},
};

_Static_assert(ARRAY_SIZE(keys) <= 32, "parser.seen has a bit for each key");

/* Sections */

static void close_section(struct parser *p)
{
	for (unsigned i = 0; p->guest && i < ARRAY_SIZE(keys); i++)
		if (keys[i].needed && !(p->seen & BIT(i)))
			complain(p, p->guest->line, 1, "this guest has no '%s': add a line '%s = ...'", keys[i].name,
				 keys[i].name);
	p->guest = NULL;
	p->section = SKIP;
	p->seen = 0;
}

static bool good_name(struct slice name)
{
	for (u32 i = 0; i < name.len; i++)
		if (!digit(name.s[i]) && (lower(name.s[i]) < 'a' || lower(name.s[i]) > 'z') &&
		    !memchr("-_.", name.s[i], 3))
			return false;
	return name.len && name.len <= CONFIG_NAME_MAX;
}

static void open_guest(struct parser *p, struct slice name)
{
	struct config *c = p->out;
	if (!good_name(name)) {
		complain(p, p->line, column(p, name.s),
			 "a guest is [guest NAME]: a name of letters, digits, - _ and . with at most %d characters",
			 CONFIG_NAME_MAX);
		return;
	}
	if (c->guests == CONFIG_MAX_GUESTS) {
		complain(p, p->line, 1, "more than %d guests", CONFIG_MAX_GUESTS);
		return;
	}
	struct guest_config *g = &c->guest[c->guests++];
	*g = (struct guest_config){
		.name = name, .vcpus = 1, .cpus = ~0ul, .weight = 256, .max_order = INHERIT, .line = p->line};
	p->guest = g;
	p->section = GUEST;
	for (const struct guest_config *other = c->guest; other < g; other++)
		if (same(other->name, name)) {
			complain(p, p->line, column(p, name.s),
				 "a second guest '%s': the first is in line %u, give this one another name",
				 quote(name).s, other->line);
			return;
		}
}

static void open_section(struct parser *p, struct slice line)
{
	close_section(p);
	if (line.s[line.len - 1] != ']') {
		complain(p, p->line, column(p, line.s + line.len), "a section ends with ']', as in [guest web]");
		return;
	}
	struct slice in = trim(line.s + 1, line.s + line.len - 1), kind = {in.s, 0};
	while (kind.len < in.len && !blank(kind.s[kind.len]))
		kind.len++;
	struct slice rest = trim(kind.s + kind.len, in.s + in.len);

	if (same(kind, slice_of("guest"))) {
		open_guest(p, rest);
	} else if (!same(in, slice_of("host"))) {
		bool host = distance(kind, "host") < distance(kind, "guest") && resembles(kind, distance(kind, "host"));
		bool guest = resembles(kind, distance(kind, "guest"));
		complain(p, p->line, column(p, in.s), "unknown section [%s]: did you mean [%s%s]?", quote(in).s,
			 host ? "host" : "guest ", host ? "" : quote(guest ? rest : in).s);
	} else if (p->host_seen) {
		complain(p, p->line, column(p, in.s), "a second [host] section: put its lines into the first");
	} else {
		p->host_seen = true;
		p->section = HOST;
	}
}

/* Keys */

static void unknown_key(struct parser *p, struct slice name)
{
	const struct key *best = NULL;
	unsigned least = ~0u;
	for (unsigned i = 0; p->out->errors < CONFIG_MAX_ERRORS && i < ARRAY_SIZE(keys); i++) {
		unsigned d = name.len <= 2 * NAME_MAX ? 2 * distance(name, keys[i].name) : ~0u;
		d += d != ~0u && keys[i].in != p->section; /* of equals, prefer one that may stand here */
		if (d < least) {
			least = d;
			best = &keys[i];
		}
	}
	u32 col = column(p, name.s);
	if (best && best->in != p->section && least == 1)
		complain(p, p->line, col, "'%s' belongs in a [%s] section", best->name,
			 best->in == HOST ? "host" : "guest NAME");
	else if (best && best->in == p->section && resembles(name, least / 2))
		complain(p, p->line, col, "unknown key '%s': did you mean '%s'?", quote(name).s, best->name);
	else
		complain(p, p->line, col, "unknown key '%s': here can be %s", quote(name).s,
			 p->section == HOST ? "console, when-idle, max-page, mmio-cache"
					    : "kernel, initrd, cmdline, memory, vcpus, cpus, weight, cap, paging, "
					      "max-page, populate, on-crash");
}

static void set_key(struct parser *p, unsigned i, const char *name, struct slice value)
{
	const struct key *k = &keys[i];
	bool again = (p->seen & BIT(i)) && k->parse != parse_initrd;
	p->seen |= (u32)BIT(i);
	if (again) {
		complain(p, p->line, column(p, name), "a second '%s' in this section", k->name);
		return;
	}
	if (!value.len && k->parse != parse_text) {
		complain(p, p->line, column(p, value.s), "'%s' has no value: it wants %s", k->name, k->wants);
		return;
	}
	s32 wrong = k->parse(k, value, p->section == HOST ? (void *)&p->out->host : p->guest);
	if (wrong != OK)
		complain(p, p->line, column(p, value.s) + (u32)wrong, "'%s' wants %s; not '%s'", k->name, k->wants,
			 quote(value).s);
}

static void assignment(struct parser *p, struct slice line)
{
	const char *eq = memchr(line.s, '=', line.len), *end = line.s + line.len;
	if (p->section == SKIP)
		return;
	if (!eq || eq == line.s) {
		complain(p, p->line, column(p, line.s), "neither 'key = value' nor a [section]");
		return;
	}
	struct slice name = trim(line.s, eq), value = trim(eq + 1, end);
	if (p->section == NOWHERE) {
		complain(p, p->line, column(p, name.s),
			 "'%s' stands before the first section: put it under [host] or [guest NAME]", quote(name).s);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].in == p->section && same(name, slice_of(keys[i].name))) {
			set_key(p, i, name.s, value);
			return;
		}
	unknown_key(p, name);
}

static void parse_line(struct parser *p, const char *end)
{
	const char *s = p->begin;
	while (s < end && (*s != '#' || (s > p->begin && !blank(s[-1]))))
		s++;
	struct slice line = trim(p->begin, s);
	if (line.len && line.s[0] == '[')
		open_section(p, line);
	else if (line.len)
		assignment(p, line);
}

/* The whole */

/* Text has no control characters but tabs and line ends; a carriage return is only half of one. */
static const char *find_garbage(const char *s, const char *end)
{
	for (; s < end; s++) {
		bool half = *s == '\r' && s + 1 < end && s[1] != '\n';
		if (half || *s == 0x7f || ((u8)*s < ' ' && *s != '\t' && *s != '\n' && *s != '\r'))
			return s;
	}
	return NULL;
}

static int reject_garbage(struct parser *p, const char *text, const char *garbage)
{
	p->begin = text;
	p->line = 1;
	for (const char *s = text; s < garbage; s++)
		if (*s == '\n') {
			p->begin = s + 1;
			p->line++;
		}
	complain(p, p->line, column(p, garbage), "not a text file: it has a byte %#04x here", (u8)*garbage);
	return -EINVAL;
}

static int finish(struct config *c)
{
	unsigned startable = 0;
	for (struct guest_config *g = c->guest; g < c->guest + c->guests; g++) {
		g->max_order = MIN(g->max_order, c->host.max_order);
		startable += !g->bad;
	}
	return startable ? 0 : -EINVAL;
}

int config_parse(const char *text, size_t len, struct config *out)
{
	struct parser p = {.out = out, .section = NOWHERE};
	*out = (struct config){.host = {.max_order = ORDER_1G, .mmio_cache = true}};
	if (len > CONFIG_MAX_TEXT) {
		complain(&p, 0, 0, "the file has %zu bytes; a config has at most %u", len, CONFIG_MAX_TEXT);
		return -EINVAL;
	}
	const char *end = text + len;
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	const char *garbage = find_garbage(text, end);
	if (garbage)
		return reject_garbage(&p, text, garbage);
	for (p.begin = text; p.begin < end;) {
		const char *nl = memchr(p.begin, '\n', (size_t)(end - p.begin));
		p.line++;
		parse_line(&p, nl ? nl : end);
		p.begin = nl ? nl + 1 : end;
	}
	close_section(&p);
	if (!out->guests && !out->errors)
		complain(&p, 0, 0, "no guest: add a section [guest NAME] with 'kernel' and 'memory'");
	return finish(out);
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
