/* SPDX-License-Identifier: MIT */
/* Doubly linked circular lists with the links inside the elements. An empty list points at itself. */
#pragma once

#include "lib/types.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }

/* Links n before pos: with the head as pos, at the end. */
static inline void list_insert(struct list *pos, struct list *n)
{
	n->next = pos;
	n->prev = pos->prev;
	pos->prev->next = n;
	pos->prev = n;
}

/* Unlinks n and leaves it as an empty list, so that a second removal is harmless. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

#define list_first(l, type, member) container_of((l)->next, type, member)
#define list_for_each(pos, head, member)                                               \
	for (pos = list_first(head, __typeof__(*pos), member); &pos->member != (head); \
	     pos = list_first(&pos->member, __typeof__(*pos), member))
