/*
 * The claim protocol of django-once. docs/explanation/model.md maps each step to the code that takes it.
 *
 * KIND says how effects and record are committed: ATOMIC, BATCHED or EXTERNAL; RETRY=0 is retry=False.
 *
 * MODELLED. Processes and one database server. Every macro below is a step of the protocol, every
 * `atomic` in it one statement that the server executes. Anything may happen between two of them:
 * freezing a process and thawing it later is an ordinary interleaving. A process may crash before
 * each statement; then another starts in its place, or none does. The lock of a live process may
 * break at any moment, by silence (the server evicts it) or suddenly (it is terminated), which the
 * process learns from its next statement there. So may its work connection, a statement or a COMMIT
 * in flight. What a client leaves behind is cleaned up later by steps of the server, but an open
 * transaction perhaps never: then only a successor's fence ends it. An INSERT or a COMMIT that was
 * in flight may arrive at any later time.
 *
 * ABSTRACTED. Time; the body; errors other than a unique violation or a broken session; the standby
 * (standby.pml) and the pooler (pool.pml), which say when to ask and when to give up, but never who
 * may commit. Crashes and breaks are bounded, since a server that breaks every lock at once lets
 * nobody through; each number up to the bound is tried. A process whose attempt ends in vain tries
 * again, which demands more than the error it exits with. Predecessors are kept as a number: those
 * up to `named` that still run. What has ended never runs again, so the set is the same. There is
 * no unique completion here, which stands behind all this.
 *
 * RUN  python -m tests.model
 */

#ifndef KIND
#define KIND ATOMIC
#endif
#ifndef RETRY
#define RETRY 1
#endif
#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef BREAKS
#define BREAKS 1
#endif

#define ATOMIC   0
#define BATCHED  1
#define EXTERNAL 2
#if KIND == BATCHED
#define BATCHES 2
#else
#define BATCHES 1
#endif

#ifndef PAUSES
#define PAUSES 0
#endif
#if PAUSES                                 /* a person pauses the routine, and resumes it or not */
bool paused;
byte pauses = PAUSES, since;               /* still to come; bodies that began since the last one */
#else
#define paused false
#endif

#ifndef REPEATS
#define REPEATS 2                          /* of a recording */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS (CRASHES + BREAKS + 1 + 2 * PAUSES)    /* enough, as claim_insert asserts; at most 5 */
#endif

#define FREE PROCESSES                     /* `holder` is a process or one of these two */
#define DEAD (PROCESSES + 1)               /* a session whose client is gone */

#define ABSENT 0
mtype = { RUNNING, SUCCEEDED,              /* an attempt's row */
          FAILED,                          /* or lost: held if it may not be retried */
          HARMLESS };                      /* ended before its body began */
#define NONE 0
mtype = { OPEN,                            /* an attempt's work transaction, with its work lock */
          SENT,                            /* its COMMIT is in flight */
          ORPHAN };                        /* the server will notice a dead client */

mtype row[ATTEMPTS + 2];                   /* by number, from 1 */
mtype tx[ATTEMPTS + 2];
bool locks[ATTEMPTS + 2];                  /* the transaction holds the attempt's row */
bool touched[ATTEMPTS + 2];                /* it holds what the body changed */
byte cursor[ATTEMPTS + 2];                 /* 0: none; else how many batches are done, and 1 */
byte last;                                 /* the highest number */
byte late;                                 /* the number of an INSERT in flight, its client gone */
byte holder = FREE;                        /* of the advisory lock */
bool completion;
byte effects[BATCHES];                     /* commits of each effect */
byte started[BATCHES];                     /* calls of each body */

byte number[PROCESSES];                    /* each process's own attempt, or 0 */
bool unaware[PROCESSES];                   /* it lost its lock but lately had an answer */
byte over;                                 /* how many ended, or are gone for good */
byte crashes, breaks;                      /* still to come */

#define mine  row[number[me]]
#define my_tx tx[number[me]]
#define running(k) (k <= ATTEMPTS && row[k] == RUNNING)
#define ill(k)     (k <= ATTEMPTS && row[k] == FAILED)
#define any_runs   (running(1) || running(2) || running(3) || running(4) || running(5))
#define held       (RETRY == 0 && (ill(1) || ill(2) || ill(3) || ill(4) || ill(5)))

#if KIND == EXTERNAL                       /* where to go when a COMMIT got no answer */
#define unsure unanswered
#else
#define unsure settle
#endif

#define CRASH :: crashes > 0 -> crashes--; goto crashed
#define BREAK(where) :: breaks > 0 -> breaks--; abandon(number[me]); goto where

inline ended(k) { tx[k] = NONE; locks[k] = false; touched[k] = false }

inline apply(k) {                          /* the server executes a COMMIT */
    assert(row[k] == RUNNING);             /* whoever was fenced records nothing */
    at = (cursor[k] -> cursor[k] - 1 : 0);
    effects[at]++;
    assert(effects[at] <= 1);
    if
    :: at + 1 == BATCHES -> row[k] = SUCCEEDED; completion = true
    :: else
    fi;
    if :: KIND == BATCHED -> cursor[k]++ :: else fi;
    at = 0;
    ended(k)
}

inline terminate(k) {                      /* a COMMIT in flight may still win */
    assert(holder >= FREE || holder == me || number[holder] != k);
    if
    :: tx[k] == SENT -> apply(k)
    :: ended(k)
    fi
}

inline abandon(k) {                        /* the client's end of the work connection is gone */
    if
    :: true                                /* a COMMIT still arrives; an open transaction stays */
    :: tx[k] == SENT -> tx[k] = OPEN
    :: tx[k] == OPEN || tx[k] == SENT -> tx[k] = ORPHAN
    fi
}

/* 0. Is it done, or held? */
inline read() {
    atomic { if CRASH
    :: completion || held -> goto finish
    :: !completion && !held && paused -> goto gone
    :: !completion && !held && !paused -> is_first = (last == 0)
    fi }
}

/* 1. Take the lock or poll; then read in its session: attempts, completion, predecessors. Where
 *    nothing was recorded before, nothing is read: the claim finds out whether that is still so. */
inline acquire() {
    atomic { if CRASH
    :: holder == FREE -> holder = me; unaware[me] = false
    :: holder != FREE -> goto poll
    fi };
    if
    :: is_first
    :: !is_first ->
#if defined(COMPLETION_FIRST)
       read_completion(); read_attempts(); read_predecessors(runs)
#elif defined(PREDECESSORS_FIRST)
       read_predecessors(true); read_attempts(); read_completion()
#else
       read_attempts(); read_completion(); read_predecessors(runs)
#endif
    fi
}

#ifdef READ_OUTSIDE_LOCK
#define IN_SESSION skip
#else
#define IN_SESSION if :: holder == me :: holder != me -> goto poll fi
#endif

inline read_attempts() {
    atomic { if CRASH :: IN_SESSION; known = last; runs = any_runs fi }
}

inline read_completion() {
    atomic { if CRASH
    :: IN_SESSION; if :: completion || held || paused -> goto leave :: else fi
    fi }
}

inline read_predecessors(are_any) {
    atomic { if CRASH :: IN_SESSION; named = (are_any -> last : 0) fi }
}

/* 2. Insert, fence, read. */
inline claim() {
#ifdef FENCE_BEFORE_INSERT
    fence(1, named); claim_read(); claim_insert()
#else
    claim_insert();
#ifdef READ_BEFORE_FENCE
    claim_read(); fence(1, named)
#else
#ifdef CURSOR_BEFORE_FENCE
    progress();
#endif
#ifndef NO_FENCE
    fence(1, named);
#endif
    claim_read()
#endif
#endif
}

inline claim_insert() {
    atomic { if
    :: crashes > 0 && late == 0 -> crashes--; late = known + 1; goto crashed
    :: breaks > 0 && late == 0 -> breaks--; late = known + 1; goto leave
    CRASH
#ifdef NUMBER_NOT_UNDER_LOCK
    :: known = last;
#else
    :: row[known + 1] != ABSENT -> goto leave      /* unique violation, or no first attempt */
    :: row[known + 1] == ABSENT ->
#endif
       number[me] = known + 1; last = number[me]; mine = RUNNING;
       assert(last <= ATTEMPTS)
    fi }
}

inline fence(first, final) {
    n = first;
    do
    :: atomic { n <= final && row[n] == RUNNING && !locks[n] -> row[n] = FAILED; n++ }
#ifndef NO_WORK_LOCK
    :: atomic { n <= final && locks[n] -> terminate(n) }        /* and look again */
#endif
    :: atomic { n <= final && row[n] != RUNNING -> n++ }
    :: atomic { n > final -> n = 0; break }
    :: atomic { crashes > 0 -> crashes--; goto crashed }
    od
}

inline claim_read() {                      /* only where there was somebody to fence */
#ifndef NO_SECOND_READ
    atomic { if CRASH
    :: !runs
#ifdef HELD_NOT_READ_AGAIN
    :: runs && completion -> goto interrupt
    :: runs && !completion
#else
    :: runs && (completion || held) -> goto interrupt
    :: runs && !completion && !held
#endif
    fi; runs = false }
#else
    skip
#endif
}

inline close(end) {                        /* the own attempt: fence, then read */
    do
    :: atomic { mine == RUNNING && !locks[number[me]] -> mine = end }
#ifndef NO_WORK_LOCK
    :: atomic { locks[number[me]] -> terminate(number[me]) }
#endif
    :: atomic { mine != RUNNING -> break }
    :: atomic { crashes > 0 -> crashes--; goto crashed }
    od
}

/* 3. Begin the work transaction on the own row, if it still runs: else fenced off. */
inline lock() {
    atomic { if CRASH
    BREAK(interrupt)
    :: my_tx != NONE -> goto settle        /* the work lock is taken: by an own, older session */
#ifdef NO_ROW_LOCK
    :: my_tx == NONE -> my_tx = OPEN
#else
    :: my_tx == NONE && mine == RUNNING -> my_tx = OPEN; locks[number[me]] = true
    :: my_tx == NONE && mine != RUNNING -> goto leave
#endif
    fi }
}

/* Asks, unless there was an answer lately: who was evicted for its silence had none. */
inline confirm() {
#ifndef NO_CONFIRM
    atomic { if CRASH
    :: holder == me || unaware[me]
    :: !(holder == me || unaware[me]) -> ended(number[me]); goto interrupt
    fi }
#else
    skip
#endif
}

inline body(k) {
    atomic {
        started[k]++;
#if PAUSES
        if :: paused && my_tx == OPEN -> since++; assert(since <= 1) :: else fi;
#endif
        assert(RETRY || started[k] <= 1);
#if KIND == EXTERNAL
        assert(mine == RUNNING);           /* the lock was asked just before */
#else
        if
        :: my_tx == OPEN ->                /* it never waits for what a predecessor changed */
            assert(!touched[1] || number[me] == 1);
            assert(!touched[2] || number[me] == 2);
            touched[number[me]] = true
        :: my_tx != OPEN
        fi
#endif
        ; begun = true
    }
}

/* The row once more, then send the COMMIT; the server applies it when it pleases. */
inline commit() {
#ifdef NO_ROW_LOCK
    atomic { if CRASH
    :: my_tx == OPEN && mine == RUNNING -> locks[number[me]] = true
#ifdef NO_STATE_CHECK
    :: my_tx == OPEN && mine != RUNNING
#else
    :: my_tx == OPEN && mine != RUNNING -> ended(number[me]); goto leave
#endif
    :: my_tx != OPEN
    fi };
#endif
    atomic { if CRASH BREAK(unsure) :: my_tx == OPEN -> my_tx = SENT :: my_tx != OPEN -> goto unsure fi };
    atomic { if CRASH BREAK(unsure)
    :: my_tx == NONE -> applied = (mine == SUCCEEDED || cursor[number[me]] > seen);
       if :: applied -> applied = false; begun = false :: else -> goto unsure fi
    :: my_tx != NONE && my_tx != SENT -> goto unsure
    fi }
}

inline progress() {                        /* of the last attempt that says how far it came */
    atomic { if CRASH
    :: n = number[me] - 1;
       do
       :: n > 0 && cursor[n] == 0 -> n--
       :: else -> break
       od;
       seen = (n > 0 -> cursor[n] : 1);
       n = 0
    fi }
}

inline resume() {
    atomic { if CRASH
    :: mine == RUNNING && !locks[number[me]] -> cursor[number[me]] = seen
    :: mine != RUNNING -> goto leave
    fi }
}

inline lock_again() {                      /* a lost connection is no end of it here */
    atomic { if CRASH
    :: my_tx != NONE -> goto settle
#ifdef NO_STATE_CHECK
    :: my_tx == NONE -> my_tx = OPEN; locks[number[me]] = true
#else
    :: my_tx == NONE && mine == RUNNING -> my_tx = OPEN; locks[number[me]] = true
    :: my_tx == NONE && mine != RUNNING -> goto leave
#endif
    fi }
}

inline end_own_session() {
#ifndef NO_END_OWN
    atomic { if CRASH :: my_tx == NONE :: my_tx != NONE -> terminate(number[me]) fi }
#else
    skip
#endif
}

#if KIND == ATOMIC
inline work() { lock(); confirm(); body(0); commit() }
#elif KIND == BATCHED
inline work() {
#ifndef CURSOR_BEFORE_FENCE
    progress();
#endif
    resume(); confirm(); look();
    do
    :: seen <= BATCHES -> lock(); body(seen - 1); commit(); seen++; look_again()
    :: seen > BATCHES -> break
    od
}

inline look() {                            /* at what people want */
    atomic { if CRASH :: paused -> goto interrupt :: !paused fi }
}

inline look_again() {
#ifdef LOOK_ONCE
    skip
#else
    if :: seen <= BATCHES -> look() :: seen > BATCHES fi
#endif
}
#else
inline work() {
#ifdef NO_PING
    body(0);
#else
    atomic {                               /* nothing is between the answer and the body */
        if CRASH :: holder == me :: holder != me -> goto interrupt fi;
        body(0)
    };
#endif
    lock_again(); commit()
}
#endif

/* 4. Close the lock's session. */
inline release() {
    atomic { if CRASH :: holder == me -> holder = FREE :: holder != me fi }
}

inline forget() {
    number[me] = 0; known = 0; named = 0; n = 0; seen = 0; runs = false; begun = false; at = 0;
    is_first = false; unaware[me] = false
}

proctype process(byte me) {
    byte known, named, n;                  /* last number, predecessors; a counter */
    byte seen, at;                         /* the cursor */
    bool runs, begun, applied, is_first;

poll:
    atomic { forget() };
    read(); acquire(); claim(); work(); release();
    goto finish;

#if KIND == EXTERNAL
unanswered:                                /* only the recording is repeated, while patience lasts */
    if :: seen < REPEATS -> seen++ :: goto settle fi;
    end_own_session();
#ifdef REPEAT_BODY
    body(0);
#endif
    lock_again(); commit(); release();
    goto finish;
#endif

settle:                                    /* the outcome is unknown: fence, then read */
#if defined(UNFENCED_OUTCOME)
    skip;
#elif defined(NO_SETTLE)
    goto leave;
#else
    if :: begun -> close(FAILED) :: else -> close(HARMLESS) fi;
#endif
    assert(mine != RUNNING && my_tx != OPEN && my_tx != SENT);
    goto leave;
interrupt:
    close(HARMLESS);
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
    assert(completion || held);
gone:
    atomic {
        forget(); over++;
        assert(completion == (effects[BATCHES - 1] == 1));
        assert(!completion || effects[0] == 1)
    }
}

#define BACKEND(k) \
    :: atomic { k <= ATTEMPTS && tx[k] == SENT -> apply(k) } \
    :: atomic { k <= ATTEMPTS && tx[k] == ORPHAN -> ended(k) }

init {
    byte i, at;
    atomic {
        select(crashes : 0 .. CRASHES);
        select(breaks : 0 .. BREAKS);
        for (i : 0 .. PROCESSES - 1) { run process(i) };
        i = 0
    };
end:
    do                                     /* the server */
    :: atomic { breaks > 0 && holder < FREE -> breaks--;
                if :: unaware[holder] = true :: skip fi; holder = DEAD }
#ifndef NO_EVICTION
    :: atomic { holder == DEAD -> holder = FREE }
#endif
    :: atomic { late > 0 ->                /* a number counts once */
                if :: row[late] == ABSENT -> row[late] = RUNNING; last = late :: else fi; late = 0 }
    :: atomic { late > 0 -> late = 0 }     /* it never arrives */
#if PAUSES
    :: atomic { pauses > 0 && !paused -> pauses--; paused = true; since = 0 }
    :: atomic { paused -> paused = false }
#endif
    BACKEND(1) BACKEND(2) BACKEND(3) BACKEND(4) BACKEND(5)
    od
}

ltl everyone_ends { <> (over == PROCESSES) }
