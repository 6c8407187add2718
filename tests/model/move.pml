/* SPDX-License-Identifier: MIT */
/*
 * A collapse (p2m/work.c) moves a page to another frame while the guest runs. Its steps, in every interleaving with CPUs
 * that read and write the page: one page, two frames.
 *
 *     begin    the page loses W; flush
 *     copy
 *     switch   the page is in the other frame, still without W; flush; it gets W; the old frame is freed
 *
 * Who wants to write in between calls it off, and waits for the lock if it is too late for that. CPUs keep what they
 * have found until they acknowledge a flush, which they do at any time, also while they wait for the lock.
 *
 * Checked: a CPU that has written says so elsewhere; whoever has heard of it finds that in the page, or something newer.
 * (Frames that have been freed hold nothing.)
 *
 * tests/system/test_model.py checks this file as it is, then with each of the mutants: those must fail.
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#define COPY_BEFORE_FLUSH 1
#define SWITCH_WRITABLE	  2 /* one CPU writes the new frame while another still reads the old one */
#define FREE_BEFORE_FLUSH 3
#define WRITE_UNNOTICED	  4 /* whoever makes the page writable does not call the collapse off */
#define MUTANTS		  4

#ifndef CPUS
#define CPUS 2
#endif
#define LAST 4 /* writes */

byte frame;		/* where the page is */
bool writable = true;
byte memory[2];		/* what was written last to each frame */
byte written, said;
bool locked, running;
bool ask[CPUS];		/* to flush */
byte reads[CPUS];	/* the CPU's translation: the frame; 2: none */
bool writes[CPUS];	/* it is writable */

inline acknowledge(id)
{
	d_step { reads[id] = 2; writes[id] = false; ask[id] = false }
}

inline make_writable(id)
{
	do
	:: ask[id] -> acknowledge(id)
	:: atomic { !locked -> locked = true; break }
	od;
	skip; /* for Spin allows no jump to a d_step */
	d_step {
		running = running && MUTANT == WRITE_UNNOTICED;
		writable = true;
		locked = false
	}
}

proctype cpu(byte id)
{
	byte heard;

end:	do
	:: ask[id] -> acknowledge(id)
	:: reads[id] == 2 -> d_step { reads[id] = frame; writes[id] = writable }
	:: reads[id] != 2 -> heard = said;
		atomic {
			assert(reads[id] == 2 || memory[reads[id]] >= heard);
			heard = 0
		}
	:: written < LAST && reads[id] != 2 && !writes[id] ->
		if
		:: writable
		:: else -> make_writable(id)
		fi;
		skip;
		d_step { reads[id] = frame; writes[id] = writable }
	:: atomic {
			written < LAST && writes[id] ->
			written++;
			memory[reads[id]] = written;
			heard = written
		}
		d_step { said = (heard > said -> heard : said); heard = 0 }
	od
}

inline flush()
{
	d_step {
		for (i : 0 .. CPUS - 1) {
			ask[i] = true
		}
	}
	for (i : 0 .. CPUS - 1) {
		!ask[i]
	}
	i = 0
}

inline copy()
{
	memory[1 - frame] = memory[frame]
}

proctype worker()
{
	byte i;

end:	do
	:: atomic { !locked -> locked = true; writable = false; running = true; locked = false }
		if
		:: MUTANT == COPY_BEFORE_FLUSH -> copy(); flush()
		:: else -> flush(); copy()
		fi;
		atomic { !locked -> locked = true }
		if
		:: running ->
			d_step {
				running = false;
				frame = 1 - frame;
				writable = MUTANT == SWITCH_WRITABLE;
				memory[1 - frame] = (MUTANT == FREE_BEFORE_FLUSH -> 0 : memory[1 - frame])
			}
			flush();
			d_step { writable = true; memory[1 - frame] = 0 }
		:: else
		fi;
		locked = false
	od
}

init
{
	byte i;

	atomic {
		for (i : 0 .. CPUS - 1) {
			reads[i] = 2;
			run cpu(i)
		}
		run worker();
		i = 0
	}
}
