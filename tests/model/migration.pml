/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The migration protocol as a model for spin: docs/migration-protocol.md 4 to 6.
 *
 * Two ends, the link between them, and an operator.  States, messages and rows
 * of the two tables have the names of migration/mig_fsm.c; test_model.py
 * compares them.  KEEPALIVE and lanes are left out: what they tell is that the
 * link is dead, and the link may die at any moment here.
 *
 * What may happen: the link is cut between any two steps, with any number of
 * the latest messages lost; an end waits too long and gives up; any operation
 * of either end fails, or is cancelled; either end crashes, once, and is
 * started again: the destination listens again, the source's host may boot the
 * guest afresh if it gets the locks.  After a failure there is a second attempt.
 *
 * NO_LOCKS: a guest without disks, or with disks whose locks do not reach the
 * other host.  Nothing but the protocol keeps the ends apart.
 *
 * MUTANT_* break the protocol in one place each; spin must find every one.
 */

/* The enums' MIG_SRC_*, MIG_DST_* and MIG_MSG_* without the MIG_. */
mtype = { SRC_START, SRC_GREETED, SRC_AGREED, SRC_DESCRIBED, SRC_ROUNDS, SRC_STOPPED,
          SRC_LOADED, SRC_COMMITTED, SRC_DONE, SRC_FAILED }
mtype = { DST_START, DST_GREETED, DST_AGREED, DST_DESCRIBED, DST_ROUNDS, DST_STOPPED,
          DST_LOADED, DST_COMMITTED, DST_DONE, DST_FAILED }
mtype = { HELLO, FACTS, CONFIG, READY, REFUSE, ROUND_DONE, STOP, STATE, LOADED, COMMIT, RUNNING, ABORT }

/* The link.  Closed in order: what is under way arrives.  Cut: it may not. */
mtype = { UP, CLOSED, CUT }

/* Who has the disk locks and the taps. */
mtype = { NOBODY, SOURCE, DESTINATION }

/* What the destination will swear to of an attempt; UNKNOWN: it is not over, or forgotten. */
mtype = { UNKNOWN, TAKEN, NEVER }

#define ATTEMPTS 2

chan to_dst = [3] of { mtype }
chan to_src = [3] of { mtype }
mtype link = CLOSED
mtype locks = SOURCE

/* The source. */
mtype src = SRC_START
bool src_alive = true, src_runs = true, src_has = true /* the guest, stopped or not */
bool undecided
byte attempt /* which one it is, or was last */

/* The destination. */
mtype dst = DST_START
bool dst_alive = true, dst_runs, dst_got_state, dst_lost /* the process of this attempt is gone */
mtype verdict = UNKNOWN /* of this attempt */

/* What happened. */
bool src_crashed, dst_crashed, was_cut, fails /* operations, or somebody cancels */
bool written /* the destination has let the guest run */

#define NOT_TWO assert(!(src_runs && dst_runs))
#ifdef NO_LOCKS
#define ARE_FREE_FOR(end) true
#define EXCLUSIVE skip
#else
#define ARE_FREE_FOR(end) (locks == NOBODY || locks == end)
#define EXCLUSIVE assert((!src_runs || locks == SOURCE) && (!dst_runs || locks == DESTINATION))
#endif

/* --- Messages ------------------------------------------------------------ */

/*
 * A row of a table: guard and effect.  The kernel takes a message for a link
 * that is dead, too: it goes nowhere.
 */
#define SEND(ch, msg) if :: link == UP -> ch!msg :: else fi
#define CAN_SEND(ch) (link != UP || nfull(ch))

#define SRC_OUT(from, msg, to) (src == from && CAN_SEND(to_dst)) -> SEND(to_dst, msg); src = to
#define SRC_IN(from, msg, to)  (src == from && to_src?[msg]) -> to_src?msg; src = to
#define DST_OUT(from, msg, to) (dst == from && CAN_SEND(to_src)) -> SEND(to_src, msg); dst = to
#define DST_IN(from, msg, to)  (dst == from && to_dst?[msg]) -> to_dst?msg; dst = to

/* Nothing more comes. */
#define BROKEN(ch) (link == CUT || (link == CLOSED && empty(ch)))

/* The connection of a process that closes it in order, or whose peer cannot tell. */
#define CLOSE if :: link == UP -> link = CLOSED :: else fi
#define BREAK link = CUT; was_cut = true

/* --- The source ---------------------------------------------------------- */

/* mig_source.c, take_back(). */
inline take_back()
{
    if
    :: !ARE_FREE_FOR(SOURCE) -> skip /* stays stopped */
    :: else ->
#ifndef MUTANT_RESUME_WITHOUT_LOCKS
        locks = SOURCE;
#endif
        src_runs = true; NOT_TWO; EXCLUSIVE;
        /* Memory of before and disks of after are no guest. */
        assert(!written)
    fi
}

/* mig_source.c, fail(), where it is not undecided. */
inline src_fail()
{
    take_back();
    CLOSE
}

#define SRC_GIVES_UP(from) \
    :: atomic { SRC_IN(from, ABORT, SRC_FAILED); src_fail() } \
    :: atomic { fails && SRC_OUT(from, ABORT, SRC_FAILED); src_fail() } \
    :: atomic { (src == from && BROKEN(to_src)) -> src = SRC_FAILED; src_fail() }

active proctype Source()
{
    byte rounds;
    bool facts_sent, state_sent;

end:
    do
    /* A listener is there: a new connection, nothing in it. */
    :: atomic {
        (src_alive && src_has && link != UP && attempt < ATTEMPTS && dst_alive && dst == DST_START
         && (src == SRC_FAILED || src == SRC_START) && src_runs) ->
            do
            :: to_dst?_
            :: to_src?_
            :: empty(to_dst) && empty(to_src) -> break
            od;
            link = UP; attempt++; verdict = UNKNOWN; dst_lost = false;
            rounds = 0; facts_sent = false; state_sent = false; src = SRC_START
       }
    :: atomic { (link == UP && src_has) && SRC_OUT(SRC_START, HELLO, SRC_GREETED) }
    :: atomic { (link != UP && src == SRC_START) -> src = SRC_FAILED } /* no connection */
    :: atomic { SRC_IN(SRC_GREETED, HELLO, SRC_AGREED) }
    :: atomic { SRC_IN(SRC_GREETED, REFUSE, SRC_FAILED); src_fail() }
    :: atomic { !facts_sent && SRC_OUT(SRC_AGREED, FACTS, SRC_AGREED); facts_sent = true }
    :: atomic { SRC_OUT(SRC_AGREED, CONFIG, SRC_DESCRIBED) }
    :: atomic { SRC_IN(SRC_DESCRIBED, READY, SRC_ROUNDS) }
    :: atomic { SRC_IN(SRC_DESCRIBED, REFUSE, SRC_FAILED); src_fail() }
    :: atomic { SRC_IN(SRC_ROUNDS, ROUND_DONE, SRC_ROUNDS); rounds++ }
    :: atomic { (rounds > 0) && SRC_OUT(SRC_ROUNDS, STOP, SRC_STOPPED) }
    :: atomic { (src == SRC_STOPPED && src_runs) -> src_runs = false } /* pause */
    :: atomic { SRC_IN(SRC_STOPPED, ROUND_DONE, SRC_STOPPED) }
    :: atomic { (!src_runs && !state_sent) && SRC_OUT(SRC_STOPPED, STATE, SRC_STOPPED);
                state_sent = true }
    :: atomic { SRC_IN(SRC_STOPPED, LOADED, SRC_LOADED) }
    :: atomic { (src == SRC_LOADED && locks == SOURCE) -> locks = NOBODY } /* release */
    :: atomic { (locks != SOURCE) && SRC_OUT(SRC_LOADED, COMMIT, SRC_COMMITTED) }
    :: atomic { SRC_IN(SRC_COMMITTED, RUNNING, SRC_DONE); src_has = false; CLOSE }
    :: atomic { SRC_IN(SRC_COMMITTED, ABORT, SRC_FAILED); src_fail() }
#ifdef MUTANT_RESUME_AFTER_COMMIT
    :: atomic { (src == SRC_COMMITTED && BROKEN(to_src)) -> src = SRC_FAILED; src_fail() }
#endif
#ifdef MUTANT_ABORT_AFTER_COMMIT
    :: atomic { SRC_OUT(SRC_COMMITTED, ABORT, SRC_FAILED); src_fail() }
#endif
    :: atomic { (src == SRC_COMMITTED && !undecided && BROKEN(to_src)) -> undecided = true }
    SRC_GIVES_UP(SRC_GREETED)
    SRC_GIVES_UP(SRC_AGREED)
    SRC_GIVES_UP(SRC_DESCRIBED)
    SRC_GIVES_UP(SRC_ROUNDS)
    SRC_GIVES_UP(SRC_STOPPED)
    SRC_GIVES_UP(SRC_LOADED)
#ifndef NO_LOCKS
    /* The host boots the guest afresh, where it gets the locks; nothing else is known there. */
    :: atomic { (src_crashed && !src_alive && locks == NOBODY) ->
                    src_alive = true; locks = SOURCE; src_runs = true; NOT_TWO; EXCLUSIVE }
#endif
    od
}

/* --- The destination ----------------------------------------------------- */

/* mig_dest.c, fail(): the guest is gone from here before anybody hears of it. */
inline discard()
{
    if :: locks == DESTINATION -> locks = NOBODY :: else fi;
    verdict = NEVER
}

inline dst_start()
{
    dst_runs = true; written = true; NOT_TWO; EXCLUSIVE
}

#define DST_GIVES_UP(from) \
    :: atomic { DST_IN(from, ABORT, DST_FAILED); discard(); CLOSE } \
    :: atomic { fails && DST_OUT(from, ABORT, DST_FAILED); discard(); CLOSE } \
    :: atomic { (dst == from && BROKEN(to_dst)) -> dst = DST_FAILED; discard(); CLOSE }

active proctype Destination()
{
    byte rounds;

end:
    do
    :: atomic { DST_IN(DST_START, HELLO, DST_GREETED); rounds = 0; dst_got_state = false }
    :: atomic { DST_OUT(DST_GREETED, HELLO, DST_AGREED) }
    :: atomic { fails && DST_OUT(DST_GREETED, REFUSE, DST_FAILED); discard(); CLOSE }
    :: atomic { DST_IN(DST_AGREED, FACTS, DST_AGREED) }
    :: atomic { DST_IN(DST_AGREED, CONFIG, DST_DESCRIBED) }
    :: atomic { DST_OUT(DST_DESCRIBED, READY, DST_ROUNDS) }
    :: atomic { fails && DST_OUT(DST_DESCRIBED, REFUSE, DST_FAILED); discard(); CLOSE }
    :: atomic { (rounds < 2) && DST_OUT(DST_ROUNDS, ROUND_DONE, DST_ROUNDS); rounds++ }
    :: atomic { DST_IN(DST_ROUNDS, STOP, DST_STOPPED) }
    :: atomic { (rounds < 2) && DST_OUT(DST_STOPPED, ROUND_DONE, DST_STOPPED); rounds++ }
    :: atomic { DST_IN(DST_STOPPED, STATE, DST_STOPPED); dst_got_state = true }
    :: atomic { dst_got_state && DST_OUT(DST_STOPPED, LOADED, DST_LOADED) }
#ifdef MUTANT_START_BEFORE_COMMIT
    :: atomic { (dst == DST_LOADED && ARE_FREE_FOR(DESTINATION) && !dst_runs) ->
                    locks = DESTINATION; dst_start() }
#endif
    :: atomic { DST_IN(DST_LOADED, COMMIT, DST_COMMITTED) }
    :: atomic { (dst == DST_COMMITTED && locks != DESTINATION && ARE_FREE_FOR(DESTINATION)) ->
                    locks = DESTINATION } /* acquire */
    :: atomic { (dst == DST_COMMITTED && locks == DESTINATION && !dst_runs) -> dst_start() }
    :: atomic { dst_runs && DST_OUT(DST_COMMITTED, RUNNING, DST_DONE); verdict = TAKEN; CLOSE }
    /* Locks are not to be had, or some operation fails. */
#ifdef MUTANT_ABORT_BEFORE_DISCARD
    :: atomic { (!dst_runs) && DST_OUT(DST_COMMITTED, ABORT, DST_COMMITTED) }
#endif
    :: atomic { (!dst_runs && (fails || locks == SOURCE)) &&
                    DST_OUT(DST_COMMITTED, ABORT, DST_FAILED); discard(); CLOSE }
    DST_GIVES_UP(DST_GREETED)
    DST_GIVES_UP(DST_AGREED)
    DST_GIVES_UP(DST_DESCRIBED)
    DST_GIVES_UP(DST_ROUNDS)
    DST_GIVES_UP(DST_STOPPED)
    DST_GIVES_UP(DST_LOADED)
    /* Reusable: it listens again. */
    :: atomic { (dst == DST_FAILED && dst_alive) -> dst = DST_START }
    od
}

/* --- What befalls them --------------------------------------------------- */

/* A wire is cut, or somebody loses patience and closes with bytes unread. */
active proctype Fate()
{
    do
    :: break /* has had enough: without this nothing would ever be left uncut */
    :: atomic { (!fails) -> fails = true }
    :: atomic { (link == UP && !was_cut) -> BREAK }
    :: atomic { (src_alive && !src_crashed) ->
            src_crashed = true; src_alive = false; src_runs = false; src_has = false;
            undecided = false; src = SRC_FAILED;
            if :: locks == SOURCE -> locks = NOBODY :: else fi;
            if :: link == UP -> link = CLOSED :: link == UP -> BREAK :: link != UP fi }
    :: atomic { (dst_alive && !dst_crashed) ->
            dst_crashed = true; dst_alive = false; dst_runs = false; dst_lost = true;
            verdict = UNKNOWN; dst = DST_FAILED;
            if :: locks == DESTINATION -> locks = NOBODY :: else fi;
            if :: link == UP -> link = CLOSED :: link == UP -> BREAK :: link != UP fi }
    :: atomic { (dst_crashed && !dst_alive) -> dst_alive = true; dst = DST_START }
    od
}

/* --- The operator -------------------------------------------------------- */

#ifdef MUTANT_NEVER_IS_NOT_BINDING
#define SWEARS_NEVER (verdict == NEVER || (verdict == UNKNOWN && !dst_runs && !dst_lost))
#else
#define SWEARS_NEVER (verdict == NEVER)
#endif
#ifdef MUTANT_LOST_BY_GUESS
#define IS_LOST true
#else
#define IS_LOST dst_lost
#endif
#ifdef MUTANT_RESUME_ON_WRITTEN_DISKS
#define MAY_RESUME true
#else
#define MAY_RESUME (!written)
#endif

/* chctl migration-resolve: at the destination for a statement, at the source with it. */
active proctype Operator()
{
end:
    do
#ifndef MUTANT_NOBODY_RESOLVES
    :: atomic { (undecided && verdict == TAKEN) ->
                    undecided = false; src_has = false; src = SRC_DONE }
    :: atomic { (undecided && SWEARS_NEVER) ->
                    undecided = false; src = SRC_FAILED; take_back() }
    /* The process is gone, which the operator has seen; and the disks are as they were left. */
    :: atomic { (undecided && IS_LOST && MAY_RESUME) ->
                    undecided = false; src = SRC_FAILED; take_back() }
#endif
    :: false
    od
}

/* --- The end ------------------------------------------------------------- */

#define NOBODY_CRASHED (!src_crashed && !dst_crashed)

active proctype Judge()
{
    timeout ->
    /* Nobody hangs. */
    assert(!src_alive || src == SRC_DONE || src == SRC_FAILED || undecided);
    assert(!dst_alive || dst == DST_DONE || dst == DST_START);
    assert(!NOBODY_CRASHED || (src_runs != dst_runs && !undecided));
    /* A destination that crashed before it had started the guest took nothing with it. */
    assert(src_crashed || src_runs || dst_runs || (dst_crashed && written));
    /* Only a link that dies, or an end, leaves anything to be decided by a person. */
    assert(!undecided || was_cut || dst_crashed)
}
