/*
 * A database that loses what it acknowledged, while lock and work are on different servers. See
 * claim.pml for the rest.
 *
 * MODELLED. An old server and a new one, which is the old one without its last commits: a standby
 * that lagged when it was promoted, or a server that crashed with synchronous_commit=off. The old
 * one lives on and answers. Each process reaches the new one with its work at some later time, and
 * never returns. The lock excludes nobody here: its session may be lost, or stay on the old server
 * and go on answering. So nothing that is claimed rests on it.
 *
 * With ITEMS, a batch of one item may fail in its body, which is undone. The item is then recorded as
 * failed. Once the routine is completed, processes try such items again, until all attempts are used.
 *
 * ABSTRACTED. A work transaction is one step, since the order of fence and COMMIT is claim.pml's.
 * The number of attempts is bounded: a process that finds no number left goes away.
 *
 * WHAT FAILS. By default no claim is torn: the commits are lost, and the address moves, while no
 * process is between its lock and its first work transaction, and the lock that it takes is on the
 * server where it works. TORN_CLAIMS lets both happen at any moment. By default the server never
 * gives an id twice. IDS_REPEAT gives the id of an attempt that was lost to the next one.
 */

#ifndef KIND
#define KIND BATCHED
#endif
#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif

#define ATOMIC  0
#define BATCHED 1
#if KIND == BATCHED
#define BATCHES 2
#else
#define BATCHES 1
#endif

#define OLD 0
#define NEW 1

#define ABSENT  0                          /* an attempt's row */
#define RUNNING 1
#define ENDED   2

typedef Server {
    byte row[ATTEMPTS + 2];                /* by number, from 1 */
    byte owner[ATTEMPTS + 2];              /* the process whose attempt it is */
    byte cursor[ATTEMPTS + 2];             /* 0: none; else how many batches are done, and 1 */
    byte first = 1;                        /* with ONE_CURSOR: that of all attempts */
    byte effects[BATCHES];                 /* commits of each effect */
#ifdef ITEMS
    bool failed[BATCHES];                  /* each is the row of a failed item */
#endif
    bool completion
};

#define BOTH   0                           /* the new server repeats what the old one does */
#define BEHIND 1                           /* what is committed from now on will be lost */
#define MOVED  2                           /* the address leads to the new one */

Server on[2];
byte phase = BOTH;
byte claiming;                             /* processes in the midst of a claim */

#define WORK on[work]                      /* where a process works */
#define LOCK on[lock]                      /* where the session of its lock is */
#define my_cursor WORK.cursor[number]
#define is_last(done) (done == BATCHES)

#ifdef IDS_REPEAT
#define runs(k) (WORK.row[k] == RUNNING)
#else
#define runs(k) (WORK.row[k] == RUNNING && WORK.owner[k] == me)
#endif

#if defined(CURSOR_IN_MEMORY) || KIND == ATOMIC
#define is_there true
#elif defined(ONE_CURSOR)
#define is_there (WORK.first == seen)
#else
#define is_there (my_cursor == seen)
#endif

#ifdef RESUME_BLINDLY
#define is_new true
#else
#define is_new (my_cursor == 0)
#endif

#ifdef NO_CONSTRAINT
#define is_unique true
#else
#define is_unique !WORK.completion
#endif

inline reach() { if :: phase == MOVED -> work = NEW :: true fi }

#ifdef TORN_CLAIMS
inline reach_torn() { reach() }
#else
inline reach_torn() { skip }
#endif

#ifdef ITEMS
#define is_settled(k) (WORK.effects[k] + WORK.failed[k] == 1)
#define is_done (LOCK.completion && !LOCK.failed[0] && !LOCK.failed[BATCHES - 1])
#define has_other_due (WORK.completion != is_of_items)
#else
#define is_settled(k) (WORK.effects[k] == 1)
#define is_done LOCK.completion
#define has_other_due WORK.completion
#endif

/* Take the lock, and read in its session. */
inline acquire() {
    atomic {
        reach();
#ifdef TORN_CLAIMS
        if :: phase == MOVED -> lock = NEW :: true fi;
#else
        lock = work;
#endif
        if :: is_done -> goto gone :: else fi;
#ifdef ITEMS
        is_of_items = LOCK.completion;
#endif
        do
        :: known < ATTEMPTS && LOCK.row[known + 1] != ABSENT ->
           known++;
           if :: LOCK.row[known] == RUNNING -> named = known :: else fi
        :: else -> break
        od;
        if :: known == ATTEMPTS -> goto gone :: else fi;
        lock = OLD; claiming++; is_claiming = true
    }
}

/* Insert, fence, read. */
inline claim() {
    atomic {
        reach_torn();
        if :: WORK.row[known + 1] != ABSENT -> goto leave :: else fi;
        number = known + 1; known = 0;
        WORK.row[number] = RUNNING; WORK.owner[number] = me
    };
    runs_any = (named > 0);
    do
    :: atomic { named > 0 -> reach_torn();
                if :: WORK.row[named] == RUNNING -> WORK.row[named] = ENDED :: else fi;
                named-- }
    :: atomic { named == 0 -> break }
    od;
    atomic { reach_torn(); if :: runs_any && has_other_due -> goto interrupt :: else fi; runs_any = false }
}

inline progress() {                        /* of the last attempt that says how far it came */
    known = number - 1;
    do
    :: known > 0 && WORK.cursor[known] == 0 -> known--
    :: else -> break
    od;
    seen = (known > 0 -> WORK.cursor[known] : 1);
    known = 0;
#ifdef ONE_CURSOR
    seen = WORK.first
#endif
}

inline resume() {                          /* in one transaction, on one server */
#ifdef RESUMED_APART
    atomic { reach_torn(); progress(); claimed() };
    atomic { reach(); if :: runs(number) && is_new -> my_cursor = seen :: else -> goto interrupt fi }
#else
    atomic {
        claimed(); reach();
        if :: runs(number) && is_new -> progress(); my_cursor = seen :: else -> goto interrupt fi
    }
#endif
}

inline claimed() { if :: is_claiming -> claiming--; is_claiming = false :: else fi }

inline complete() {
    WORK.row[number] = ENDED; WORK.completion = true;
    assert(is_settled(0) && is_settled(BATCHES - 1))
}

/* One work transaction. Its answer may be lost. */
inline work_transaction() {
    atomic {
        claimed(); reach();
        if :: runs(number) && is_there && (is_unique || !is_last(seen)) :: else -> goto interrupt fi;
#ifdef ITEMS
        if
        :: WORK.effects[seen - 1]++; fails = false
        :: fails = true
        fi;
#ifndef RECORDED_APART
        if :: fails -> WORK.failed[seen - 1] = true; fails = false :: else fi;
#endif
        assert(WORK.effects[seen - 1] + WORK.failed[seen - 1] <= 1);
#else
        WORK.effects[seen - 1]++;
        assert(WORK.effects[seen - 1] <= 1);
#endif
        my_cursor = seen + 1; WORK.first = seen + 1;
#ifndef COMPLETION_APART
        if :: is_last(seen) -> complete() :: else fi;
#endif
        if :: seen++ :: goto interrupt fi
    }
#ifdef RECORDED_APART
    atomic { reach(); if :: fails && runs(number) -> WORK.failed[seen - 2] = true :: else fi; fails = false }
#endif
}

#ifdef ITEMS
/* Each failed item alone: its row goes with its effects. */
inline try_failed_items() {
    seen = 1;
    do
    :: atomic {
           seen <= BATCHES -> reach();
           if :: runs(number) :: else -> goto interrupt fi;
           if
           :: WORK.failed[seen - 1] ->
              WORK.effects[seen - 1]++;
              assert(WORK.effects[seen - 1] <= 1);
#ifdef REMOVED_APART
              fails = true
#else
              WORK.failed[seen - 1] = false
#endif
           :: true                         /* it fails again, or it did not fail */
           fi;
           if :: seen++ :: goto interrupt fi
       }
#ifdef REMOVED_APART
    :: atomic { fails -> reach(); if :: runs(number) -> WORK.failed[seen - 2] = false; fails = false :: else -> goto interrupt fi }
#endif
    :: atomic {
           seen > BATCHES -> reach();
           if :: runs(number) -> WORK.row[number] = ENDED; goto leave :: else -> goto interrupt fi
       }
    od
}
#endif

proctype process(byte me) {
    byte work, lock;                       /* servers */
    byte known, named, number, seen;       /* last number, predecessors; the own one; the cursor */
    bool runs_any, is_claiming;
#ifdef ITEMS
    bool is_of_items, fails;               /* what it claimed for; the last batch failed */
#endif

poll:
    acquire(); claim();
#if KIND == BATCHED
    resume();
#else
    seen = 1;
#endif
#ifdef ITEMS
    if :: is_of_items -> try_failed_items() :: else fi;
#endif
    do
    :: atomic { seen <= BATCHES -> skip }; work_transaction()
    :: atomic { seen > BATCHES -> break }
    od;
#ifdef COMPLETION_APART
    atomic { reach(); if :: runs(number) && is_unique -> complete() :: else -> goto interrupt fi };
#endif
#ifdef ITEMS
    goto leave;
#else
    goto gone;
#endif

interrupt:                                 /* close the own attempt */
    atomic { reach(); if :: runs(number) -> WORK.row[number] = ENDED :: else fi };
leave:
    atomic {
#ifdef ITEMS
        is_of_items = false; fails = false;
#endif
        claimed(); known = 0; named = 0; number = 0; seen = 0; runs_any = false; goto poll
    };
gone:
    atomic { claimed(); work = OLD; lock = OLD; known = 0; named = 0; number = 0; seen = 0 }
}

#ifdef TORN_CLAIMS
#define may_fail true
#else
#define may_fail (claiming == 0)
#endif

init {
    byte i;
    atomic { for (i : 0 .. PROCESSES - 1) { run process(i) }; i = 0 };
end:
    do
    :: d_step {
           phase == BOTH && may_fail -> phase = BEHIND;
           for (i : 1 .. ATTEMPTS) {
               on[NEW].row[i] = on[OLD].row[i];
               on[NEW].owner[i] = on[OLD].owner[i];
               on[NEW].cursor[i] = on[OLD].cursor[i]
           };
           for (i : 0 .. BATCHES - 1) {
#ifdef ITEMS
               on[NEW].failed[i] = on[OLD].failed[i];
#endif
               on[NEW].effects[i] = on[OLD].effects[i]
           };
           on[NEW].first = on[OLD].first;
           on[NEW].completion = on[OLD].completion;
           i = 0
       }
    :: d_step { phase == BEHIND && may_fail -> phase = MOVED }
    od
}
