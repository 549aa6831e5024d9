/*
 * The claim protocol of django-once for an atomic routine: effect and record commit together.
 *
 * MODELLED. Processes and one database server. Every macro below is a step of the protocol, every
 * `atomic` in it one statement that the server executes. Anything may happen between two of them:
 * freezing a process and thawing it later is an ordinary interleaving. A process may crash before
 * each statement; then another starts in its place, or none does. The guard of a live process may
 * break at any moment (eviction, cut network), which the process learns from its next statement
 * there. So may its work connection, the transaction open or its COMMIT in flight. What a client
 * leaves behind is cleaned up later by steps of the server, but an open transaction perhaps never:
 * then only a successor's fence ends it.
 *
 * ABSTRACTED. Time; the body; errors other than a unique violation or a broken session. A process
 * that is fenced off tries again, which demands more than the error it exits with. An INSERT in
 * flight at a crash is a crash just after it. Crashes and breaks are bounded, since a server that
 * breaks every guard at once lets nobody through; each number up to the bound is tried, so no run
 * needs one more of them to go on. Predecessors are kept as a number: those up to `named` that
 * still run. What has ended never runs again, so the set is the same.
 *
 * PROPERTIES
 * 1. The effect is committed at most once. Commits are counted: no unique completion helps here.
 * 2. A completion is never lost: who reports done finds it, and it is there iff one commit was.
 * 3. Nobody is stuck: no invalid end state and, under weak fairness, every process ends.
 * 4. No fence terminates a backend whose attempt still owns the guard.
 * 5. An unknown outcome, once settled, is final: no COMMIT arrives after it was read.
 *
 * VARIANTS. Two safeguards tie a claim to its guard: the number that only the holder can know, and
 * the ping after the claim. -DNUMBER_NOT_UNDER_GUARD or -DNO_PING alone does no harm; both together
 * break 1. So do -DREAD_BEFORE_FENCE, -DNO_FENCE and, with -DNO_PING, -DPREDECESSORS_FIRST: the
 * guard must read the number before the predecessors, or both in one statement. -DNO_EVICTION (the
 * server keeps a dead holder's guard) breaks 3.
 *
 * RUN  spin -a claim.pml && gcc -O2 -DSAFETY -DNOCLAIM -o pan pan.c && ./pan -m100000
 *      spin -a claim.pml && gcc -O2 -o pan pan.c && ./pan -a -f -m1000000           (for the ltl)
 */

#ifndef PROCESSES
#define PROCESSES 2
#define CRASHES   2
#define BREAKS    2
#endif
#define ATTEMPTS (CRASHES + BREAKS + 1)    /* enough, as claim_insert asserts; at most 5 */

#define FREE PROCESSES                     /* `holder` is a process or one of these two */
#define DEAD (PROCESSES + 1)               /* a session whose client is gone */

#define ABSENT 0                           /* an attempt's row, with its work transaction: */
mtype = { RUNNING,                         /* not locked */
          OPEN,                            /* locked by an open work transaction */
          SENT,                            /* the same, and its COMMIT is in flight */
          ORPHAN,                          /* open; the server will notice a dead client */
          SUCCEEDED, INTERRUPTED, LOST };  /* ended */

#define locked(n) (row[n] == OPEN || row[n] == SENT || row[n] == ORPHAN)
#define mine      row[number[me]]

mtype row[7];                              /* by number, from 1 */
byte last;                                 /* the highest number */
byte holder = FREE;                        /* of the advisory lock */
bool completion;
byte effects;                              /* commits of the effect */

byte number[PROCESSES];                    /* each process's own attempt, or 0 */
byte over;                                 /* how many reported done or are gone for good */
byte crashes, breaks;                      /* still to come */

#define CRASH :: crashes > 0 -> crashes--; goto crashed
#define BREAK :: breaks > 0 -> breaks--; abandon(number[me]); goto settle

inline apply(n) {                          /* the server executes a COMMIT */
    row[n] = SUCCEEDED; completion = true; effects++;
    assert(effects <= 1)
}

inline terminate(n) {                      /* a COMMIT in flight may still win */
    assert(holder >= FREE || holder == me || number[holder] != n);
    if
    :: row[n] == SENT -> apply(n)
    :: row[n] = RUNNING
    fi
}

inline abandon(n) {                        /* the client's end of the work connection is gone */
    if
    :: true                                /* a COMMIT still arrives; an open transaction stays */
    :: row[n] == SENT -> row[n] = OPEN
    :: row[n] == OPEN || row[n] == SENT -> row[n] = ORPHAN
    fi
}

/* 0. Is it done? */
inline read() {
    atomic { if CRASH :: completion -> goto finish :: !completion fi }
}

/* 1. Take the lock or poll; then read in its session. */
inline guard() {
    atomic { if CRASH :: holder == FREE -> holder = me :: holder != FREE -> goto poll fi };
#ifdef PREDECESSORS_FIRST
    guard_read(named); guard_read(known)
#else
    guard_read(known); guard_read(named)
#endif
}

inline guard_read(into) {
    atomic { if CRASH
    :: holder == me && !completion -> into = last
    :: holder == me && completion -> goto leave
    :: holder != me -> goto poll
    fi }
}

inline guard_ping() {
#ifdef NO_PING
    skip
#else
    atomic { if CRASH :: holder == me :: holder != me -> goto interrupt fi }
#endif
}

/* 2. Insert, fence, read. */
inline claim() {
    claim_insert();
#ifdef READ_BEFORE_FENCE
    claim_read(); fence(1, named);
#else
#ifndef NO_FENCE
    fence(1, named);
#endif
    claim_read();
#endif
    guard_ping()
}

inline claim_insert() {
    atomic { if CRASH
#ifdef NUMBER_NOT_UNDER_GUARD
    :: known = last;
#else
    :: row[known + 1] != ABSENT -> goto leave      /* unique violation: the guard was lost */
    :: row[known + 1] == ABSENT ->
#endif
       number[me] = known + 1; last = number[me]; mine = RUNNING;
       assert(last <= ATTEMPTS)
    fi }
}

inline fence(first, final) {
    n = first;
    do
    :: atomic { n <= final && row[n] == RUNNING -> row[n] = LOST; n++ }
    :: atomic { n <= final && locked(n) -> terminate(n) }       /* and look again */
    :: atomic { n <= final && row[n] != RUNNING && !locked(n) -> n++ }
    :: atomic { n > final -> n = 0; break }
    :: atomic { crashes > 0 -> crashes--; goto crashed }
    od
}

inline claim_read() {
    atomic { if CRASH :: completion -> goto interrupt :: !completion fi }
}

inline claim_end() {                       /* unless a successor was faster */
    atomic { if CRASH :: mine == RUNNING -> mine = INTERRUPTED :: mine != RUNNING fi }
}

/* 3. Open the work transaction on the own row, if it still runs: else fenced off. */
inline work() {
    atomic { if CRASH :: mine == RUNNING -> mine = OPEN :: mine != RUNNING -> goto leave fi }
}

/* Send the COMMIT, unless terminated; the server applies it when it pleases; await the answer. */
inline commit() {
    atomic { if CRASH BREAK :: mine == OPEN -> mine = SENT :: mine != OPEN -> goto settle fi };
    atomic { if CRASH BREAK
    :: mine == SUCCEEDED
    :: mine != SUCCEEDED && mine != SENT -> goto settle
    fi }
}

/* 4. Close the guard's session. */
inline release() {
    atomic { if CRASH :: holder == me -> holder = FREE :: holder != me fi }
}

inline forget() { number[me] = 0; known = 0; named = 0; n = 0 }

proctype process(byte me) {
    byte known, named, n;                  /* last number, predecessors; a counter */

poll:
    atomic { forget() };
    read(); guard(); claim(); work(); commit(); release();
    goto finish;

settle:                                    /* the outcome is unknown: fence, then read */
    fence(number[me], number[me]);
    assert(mine != RUNNING && !locked(number[me]));
    goto leave;
interrupt:
    claim_end();
leave:
    release();
    goto poll;

crashed:
    atomic {
        abandon(number[me]);
        if :: holder == me -> holder = DEAD :: holder != me fi;
        forget();
        if :: goto poll :: goto gone fi    /* started again, or not */
    };
finish:
    assert(completion);
gone:
    atomic { forget(); over++; assert(completion == (effects == 1)) }
}

#define BACKEND(n) \
    :: atomic { row[n] == SENT -> apply(n) } \
    :: atomic { row[n] == ORPHAN -> row[n] = RUNNING }

init {
    byte i;
    atomic {
        select(crashes : 0 .. CRASHES);
        select(breaks : 0 .. BREAKS);
        for (i : 0 .. PROCESSES - 1) { run process(i) }
    };
end:
    do                                     /* the server */
    :: atomic { breaks > 0 && holder < FREE -> breaks--; holder = DEAD }
#ifndef NO_EVICTION
    :: atomic { holder == DEAD -> holder = FREE }
#endif
    BACKEND(1) BACKEND(2) BACKEND(3) BACKEND(4) BACKEND(5)
    od
}

ltl everyone_ends { <> (over == PROCESSES) }
