/* SPDX-License-Identifier: MIT */
/*
 * Posted interrupts: whether one that somebody posts can stay where it is.
 *
 *     post:   PIR |= bit;  inside? notify : kick
 *     look:   PIR to IRR;  nothing, and halted?  block, unless woken since it was picked
 *     enter:  interrupts off;  kicked? no;  inside = true;  VM entry
 *     guest:  notified: PIR to IRR;  IRR: delivered;  kicked: exit;  HLT: exit
 *     exit:   inside = false, and nobody's look comes before that;  interrupts on
 *
 * Checked: when all is posted and the vCPU rests, in the guest or blocked, nothing is left in PIR or undelivered. A kick
 * always makes it look, so where the entry races it does no harm that inside is seen late; the exit is another matter.
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#define LATE_OUTSIDE 1 /* what was posted is looked for before others see that the vCPU is outside: a plain store */
#define INSIDE_FIRST 2 /* who posts looks whether it is inside first */
#define NO_KICK	     3 /* ... leaves it to the next entry if it is not */
#define ONLY_NOTIFY  4 /* ... notifies it all the same */
#define KICKED_LOST  5 /* the entry forgets that it was kicked since the look */
#define MUTANTS	     5

#ifndef POSTERS
#define POSTERS 2
#endif
/* How often each posts; and how often the vCPU leaves the guest for a reason of its own. */
#ifndef TIMES
#define TIMES 2
#endif
#ifndef EXITS
#define EXITS 2
#endif

byte pir, irr; /* a bit for each poster */
bool inside, notified;
bool kicked;   /* the pCPU is to look at its queues; in the guest, an interrupt of ours is pending */
bool blocked, woken;
byte working = POSTERS;

inline kick()
{
	d_step { if :: blocked -> blocked = false :: else -> woken = true; kicked = true fi }
}

inline take()
{
	d_step { irr = irr | pir; pir = 0 }
}

proctype poster(byte mine)
{
	byte n = 0;
	bool fresh, in;

	do
	:: n == TIMES -> break
	:: n < TIMES ->
		n++;
		in = inside;
		d_step { fresh = !(pir & mine); pir = pir | mine };
		if
		:: MUTANT != INSIDE_FIRST -> in = inside
		:: else
		fi;
		if
		:: fresh && (in || MUTANT == ONLY_NOTIFY) -> notified = true
		:: fresh && !in && MUTANT != ONLY_NOTIFY && MUTANT != NO_KICK -> kick()
		:: else
		fi
	od;
	working--
}

/* A notification that comes outside is an interrupt as any: the pCPU looks at its queues. */
inline host_interrupt()
{
	d_step { if :: notified -> notified = false; kicked = true :: else fi }
}

proctype vcpu()
{
	bool halted = false;
	byte exits = 0;

pick:	skip;
	d_step { woken = false; kicked = false };
look:	skip;
	take();
rest:	skip;
	host_interrupt();
	halted = halted && !irr;
	if
	:: halted -> goto block
	:: !halted && kicked && MUTANT != KICKED_LOST -> goto pick /* leaves the loop, ready as it is */
	:: !halted && kicked && MUTANT == KICKED_LOST -> kicked = false
	:: else
	fi;
	inside = true;
end_guest:
	do
	:: notified -> d_step { notified = false; irr = irr | pir; pir = 0 }
	:: irr -> irr = 0
	:: kicked -> break
	:: exits < EXITS && !irr && !notified -> exits++; halted = true; break
	:: exits < EXITS -> exits++; break
	od;
	if
	:: MUTANT == LATE_OUTSIDE -> take(); inside = false; goto rest
	:: else -> inside = false; goto look
	fi;
block:	skip;
	d_step { if :: woken :: else -> blocked = true fi };
end_blocked:
	do
	:: !blocked -> break
	:: blocked && notified -> notified = false /* an idle pCPU looks at its queues, and this vCPU is in none */
	od;
	goto pick
}

/* All at rest: posted and delivered. */
active proctype judge()
{
end_judge:
	atomic {
		working == 0 && !notified && (blocked || (inside && !kicked && !irr)) ->
		assert(!pir && !irr)
	}
}

init
{
	atomic {
		byte i = 0;
		do
		:: i < POSTERS -> run poster(1 << i); i++
		:: else -> break
		od;
		run vcpu()
	}
}
