/* SPDX-License-Identifier: MIT */
/*
 * Whom a flush asks. Writers replace the frame that a page has, over and over, and free the old one after the flush:
 *
 *     entry = new;  gen++;  ask all in the mask;  wait for them;  free old
 *
 * A pCPU is in the mask only while it runs the guest or looks something up for it. What it remembers meanwhile, in a
 * TLB with tags or in a cache of lookups, it keeps when it leaves, and compares the generation when it comes back. So
 * a flush costs no interrupt to a pCPU that is elsewhere.
 *
 * Checked: nobody uses a frame that has been freed. Each pCPU takes the interrupt where interrupts are on: while the
 * guest runs, or between two looks, not in the middle of one.
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#define GEN_AFTER_MASK 1 /* the writer reads the mask first: who enters in between is neither asked nor told */
#define GEN_FIRST      2 /* ... bumps the generation before the entry has changed */
#define ENTER_UNMARKED 3 /* the pCPU compares generations before it is in the mask */
#define NO_COMPARE     4 /* ... not at all: as if every TLB were flushed on entry, which only emulators do */
#define CACHE_LATE_GEN 5 /* a lookup is remembered under the generation of its end */
#define FREE_FIRST     6 /* XSA-480 */
#define ASK_ONE        7 /* only one pCPU is asked */
#define MUTANTS	       7

#ifndef CPUS
#define CPUS 2
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef CACHE
#define CACHE 1
#endif
/* Flushes end at this generation, or the states would not. */
#ifndef GENS
#define GENS 4
#endif

byte entry = 0;	       /* the page's frame: 0 .. 2 */
bool freed[3];
byte gen = 1;
bool locked, mask[CPUS], ask[CPUS];
byte frame[CPUS];      /* in the TLB; 3: nothing */
byte tlb_gen[CPUS];
byte cached[CPUS];     /* in the cache of lookups */
byte cache_gen[CPUS];  /* 0: nothing */

inline interrupt(id)
{
	d_step { frame[id] = 3; ask[id] = false }
}

/* In the guest: translations are made and used until an interrupt or an exit. */
inline run_guest(id)
{
	do
	:: ask[id] -> interrupt(id)
	:: frame[id] == 3 -> seen = entry; frame[id] = seen; assert(!freed[seen]) /* no interrupt within a walk */
	:: frame[id] != 3 -> assert(!freed[frame[id]])
	:: break
	od
}

proctype cpu(byte id)
{
	byte g, seen;

	do
	:: ask[id] -> interrupt(id)
	/* p2m_enter, the backend's comparison, VMRUN, p2m_leave */
	:: true ->
		if
		:: MUTANT == ENTER_UNMARKED -> g = gen; mask[id] = true
		:: else -> mask[id] = true; g = gen
		fi;
		if
		:: g != tlb_gen[id] && MUTANT != NO_COMPARE -> frame[id] = 3; tlb_gen[id] = g
		:: else
		fi;
		run_guest(id);
		mask[id] = false;
		d_step { g = 0; seen = 0 }
	/* A lookup, with interrupts off. */
	:: CACHE ->
		mask[id] = true;
		g = gen;
		if
		:: g == cache_gen[id] -> assert(!freed[cached[id]])
		:: else ->
			seen = entry;
			assert(!freed[seen]);
			if
			:: MUTANT == CACHE_LATE_GEN -> g = gen
			:: else
			fi;
			d_step { cached[id] = seen; cache_gen[id] = g }
		fi;
		mask[id] = false;
		d_step { g = 0; seen = 0 }
	od
}

proctype writer()
{
	byte i, old, new, last;
	bool asked[CPUS];

	do
	:: atomic { !locked && gen < GENS -> locked = true };
		atomic {
			if
			:: freed[0] -> new = 0
			:: freed[1] -> new = 1
			:: freed[2] -> new = 2
			fi;
			freed[new] = false
		}
		if
		:: MUTANT == GEN_FIRST -> gen++
		:: else
		fi;
		atomic { old = entry; entry = new }
		locked = false; /* the debt is settled without the lock */
		if
		:: MUTANT == FREE_FIRST -> freed[old] = true
		:: else
		fi;
		if
		:: MUTANT != GEN_AFTER_MASK && MUTANT != GEN_FIRST -> gen++
		:: else
		fi;
		d_step {
			for (i : 0 .. CPUS - 1) {
				asked[i] = mask[i];
				ask[i] = ask[i] || mask[i]
			}
			i = 0;
			last = (MUTANT == ASK_ONE -> 1 : CPUS)
		}
		if
		:: MUTANT == GEN_AFTER_MASK -> gen++
		:: else
		fi;
		do
		:: i < last ->
			if
			:: asked[i] -> !ask[i]
			:: else
			fi;
			i++
		:: else -> break
		od;
		freed[old] = true;
		d_step {
			for (i : 0 .. CPUS - 1) {
				asked[i] = false
			}
			i = 0;
			old = 0;
			new = 0;
			last = 0
		}
	od
}

init
{
	byte i;

	atomic {
		freed[1] = true;
		freed[2] = true;
		for (i : 0 .. CPUS - 1) {
			frame[i] = 3;
			run cpu(i)
		}
		for (i : 0 .. WRITERS - 1) {
			run writer()
		}
		i = 0
	}
}
