/* SPDX-License-Identifier: MIT */
/*
 * The page-table engine's rules (mm/pt.h), checked in every interleaving that there is. The engine is made as small as
 * it can be: two pages, which are one large leaf or a table of two.
 *
 *     root --+-- leaf: pages 0 and 1              root --+-- table --+-- page 0
 *                                                                    +-- page 1
 *
 * Writers split, merge, protect, harvest dirty bits, give a page back and bring it again. Each change is made with the
 * lock, its debt is settled without. CPUs walk at any time, one load a step; set the dirty bit by compare-and-swap;
 * keep what they have found until they acknowledge a flush; read and write by it. The accessed bit is like the dirty
 * bit, and left out.
 *
 * Checked at each step: no CPU walks through a freed table, finds a hole, another page's frame or a freed one. No write
 * is missing in what the dirty bits say. When a writer relies on a page being read-only, no CPU can write to it.
 *
 * tests/system/test_model.py checks this file as it is, then with each of the mutants: those must fail, or the model
 * proves nothing.
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#define PUBLISH_EMPTY	   1  /* the table is published, then filled: Jailhouse */
#define BREAK_FIRST	   2  /* the old entry is cleared before the new one is stored: XSA-328 */
#define PLAIN_SPLIT	   3  /* no compare-and-swap: Linux 4f510c8bb1dd */
#define PLAIN_PROTECT	   4
#define PLAIN_HARVEST	   5
#define TABLE_BEFORE_FLUSH 6  /* freed before the flush: XSA-480 */
#define FRAME_BEFORE_FLUSH 7
#define MERGE_AS_SEEN	   8  /* the merged entry is clean if all were clean when looked at */
#define FLUSH_IF_CHANGED   9  /* no flush where the entry was read-only already: KVM, spte.h */
#define WALK_UNSEEN	   10 /* a CPU acknowledges a flush in the middle of a walk */
#define LOG_BEFORE_FLUSH   11 /* the dirty log is taken before the flush */
#define MUTANTS		   11

#ifndef CPUS
#define CPUS 2
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
/* Operations: 0 split and merge, 1 take W from page 0, 2 give it back, 3 give page 1 back, 4 bring it again, 5 harvest */
#ifndef OPS
#define OPS 63
#endif
#define op(n) (((OPS) >> n) & 1)

/* An entry is a byte: bits, and the number of a frame or of a table. Page n is in frame n; nothing is in frame 7. */
#define P	    1
#define W	    2
#define D	    4
#define TABLE	    8
#define number(e)   ((e) >> 4)
#define entry(n)    ((n) << 4)
#define child(e, n) ((e) + entry(n))
#define to_table(n) (P | W | TABLE | entry(n))
#define JUNK	    (P | W | entry(7))

byte root = P | W;
byte slot[4]; /* the entries of table 0, then of table 1 */
#define at(page) slot[number(root) * 2 + page]
#define page_0	 (root & TABLE -> at(0) : root)

bool locked, is_table[2];
bool out, freed;       /* page 1: not mapped; its frame is somebody else's */
bool dirtied, logged;  /* page 0: written; about to be reported as written */
bool ask[CPUS];	       /* to flush */
bool reads[CPUS * 2];  /* the CPU's translations of pages 0, 1 */
bool writes[CPUS * 2]; /* those that it found writable and has marked dirty */

/* --- CPUs. */

inline acknowledge(id)
{
	d_step {
		reads[id * 2] = false;
		reads[id * 2 + 1] = false;
		writes[id * 2] = false;
		writes[id * 2 + 1] = false;
		ask[id] = false
	}
}

#define knows	(write -> writes[id * 2 + page] : reads[id * 2 + page])
#define check_hole assert((e & P) || (page == 1 && out))

/* e: what the walk found, in the root or in the table. */
inline walk(id)
{
	do
	:: atomic { e = root; check_hole }
		table = 4;
		if
		:: e & TABLE ->
			table = number(e);
			if
			:: MUTANT == WALK_UNSEEN && ask[id] -> acknowledge(id)
			:: else
			fi;
			atomic {
				assert(is_table[table]);
				e = slot[table * 2 + page];
				check_hole
			}
		:: else
		fi;
		if
		:: !(e & P) || (write && !(e & W)) -> break /* a fault */
		:: else
		fi;
		atomic {
			if
			:: table == 4 && root == e ->
				root = e | (write -> D : 0);
				assert(number(e) == 0)
			:: table < 4 && slot[table * 2 + page] == e ->
				assert(is_table[table] && number(e) == page);
				slot[table * 2 + page] = e | (write -> D : 0)
			:: else -> goto changed
			fi;
			reads[id * 2 + page] = true;
			writes[id * 2 + page] = writes[id * 2 + page] || write;
			break
		}
changed:	skip
	od;
	skip /* for Spin allows no jump to a d_step */
}

proctype cpu(byte id)
{
	byte e, table, page;
	bool write;

	do
	:: ask[id] -> acknowledge(id)
	:: atomic {
		if
		:: page = 0
		:: page = 1
		fi;
		if
		:: write = false
		:: write = true
		fi
	   }
		if
		:: knows
		:: else -> walk(id)
		fi;
		d_step {
			if
			:: knows ->
				assert(page == 0 || !freed);
				dirtied = dirtied || (write && page == 0)
			:: else
			fi;
			e = 0;
			table = 0;
			page = 0;
			write = false
		}
	od
}

/* --- Writers. */

inline flush()
{
	d_step { old = 0; new = 0 }
	if
	:: owes ->
		d_step {
			for (i : 0 .. CPUS - 1) {
				ask[i] = true
			}
			owes = false
		}
		for (i : 0 .. CPUS - 1) {
			!ask[i]
		}
		i = 0
	:: else
	fi
}

inline split()
{
	if
	:: root & TABLE
	:: else ->
		atomic {
			if
			:: !is_table[0] -> new = 0
			:: !is_table[1] -> new = 1 /* the other one's debt is not settled yet */
			fi;
			is_table[new] = true;
			old = root
		}
		if
		:: MUTANT == PUBLISH_EMPTY ->
			d_step { slot[new * 2] = 0; slot[new * 2 + 1] = 0 }
			root = to_table(new)
		:: MUTANT == BREAK_FIRST -> root = 0
		:: else
		fi;
		do
		:: slot[new * 2] = child(old, 0);
			slot[new * 2 + 1] = child(old, 1);
			atomic {
				if
				:: root == old || (MUTANT >= PUBLISH_EMPTY && MUTANT <= PLAIN_SPLIT) ->
					root = to_table(new);
					break
				:: else -> old = root
				fi
			}
		od;
		owes = true
	fi
}

/* Both agree but for D: they become one, which says dirty if it can be written. */
inline merge()
{
	old = at(0);
	new = at(1);
	if
	:: (old & P) && (new & P) && ((old | D) + entry(1)) == (new | D) ->
		retired = number(root);
		root = old | (new & D) | (MUTANT != MERGE_AS_SEEN && (old & W) -> D : 0);
		owes = true
	:: else
	fi
}

inline change(page, value, plain)
{
	do
	:: old = at(page);
		atomic {
			if
			:: at(page) == old || plain ->
				at(page) = value;
				break
			:: else
			fi
		}
	od
}

inline release()
{
	d_step {
		if
		:: retired != 255 ->
			is_table[retired] = false;
			slot[retired * 2] = JUNK;
			slot[retired * 2 + 1] = JUNK;
			retired = 255
		:: else
		fi
	}
}

#define lock_for(n) atomic { !locked && op(n) -> locked = true }
#define unlock	    locked = false

proctype writer()
{
	byte i, old, new, retired = 255;
	bool owes;

	do
	:: lock_for(0);
		if
		:: root & TABLE -> merge()
		:: else -> split()
		fi;
		unlock;
		if
		:: MUTANT == TABLE_BEFORE_FLUSH -> release()
		:: else
		fi;
		flush();
		release()
	:: lock_for(1);
		split();
		if
		:: MUTANT == FLUSH_IF_CHANGED && !(at(0) & W)
		:: else -> owes = true
		fi;
		change(0, old & ~W, MUTANT == PLAIN_PROTECT);
		unlock;
		flush();
		d_step {
			for (i : 0 .. CPUS - 1) {
				assert(!writes[i * 2] || (op(2) && WRITERS > 1))
			}
			i = 0
		}
	:: lock_for(2);
		split();
		change(0, old | W, false);
		unlock;
		flush()
	:: atomic { !locked && op(3) && !out -> locked = true }
		split();
		out = true;
		change(1, 0, false);
		owes = true;
		unlock;
		if
		:: MUTANT == FRAME_BEFORE_FLUSH -> freed = true
		:: else
		fi;
		flush();
		freed = true
	:: atomic { !locked && op(4) && out && freed -> locked = true }
		freed = false;
		split();
		atomic {
			at(1) = child(P | W, 1);
			out = false
		}
		unlock;
		flush()
	:: lock_for(5);
		split();
		change(0, old & ~D, MUTANT == PLAIN_HARVEST);
		owes = true;
		d_step {
			logged = (old & D) && MUTANT != LOG_BEFORE_FLUSH;
			dirtied = dirtied && (MUTANT != LOG_BEFORE_FLUSH || (page_0 & D))
		}
		flush();
		d_step {
			assert(!dirtied || logged || (page_0 & D));
			dirtied = dirtied && (page_0 & D);
			logged = false
		}
		unlock
	od
}

init
{
	byte i;

	atomic {
		for (i : 0 .. CPUS - 1) {
			run cpu(i)
		}
		for (i : 0 .. WRITERS - 1) {
			run writer()
		}
		i = 0
	}
}
