/*
 * Locks on the record's tables: a statement that changes a table, as a later release's migration
 * does, beside processes that run a routine. See claim.pml for the rest.
 *
 * MODELLED. Each process has two sessions, one for its lock and one for its work, and waits for
 * both in turn. No server sees that. A reader shares a table; a change of the table takes it alone,
 * and all that ask after the change wait behind it. A statement of its own, and one in the lock's
 * session, gives up after a while (lock_timeout) and is repeated later. A work transaction keeps
 * what it asked for until it ends.
 *
 * ABSTRACTED. There is one table. A change that waits is always first in the queue. Bodies end.
 */

#ifndef KIND
#define KIND ATOMIC
#endif
#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef CHANGES
#define CHANGES 2
#endif

#define ATOMIC   0
#define BATCHED  1
#define EXTERNAL 2
#if KIND == BATCHED
#define BATCHES 2
#else
#define BATCHES 1
#endif

#define FREE PROCESSES

byte holder = FREE;                        /* of the routine's lock */
bool completion;
byte shares;                               /* sessions that share the table */
bool is_changed, is_asked;                 /* a change has the table, or waits for it */
byte over;

#define is_open (!is_changed && !is_asked)

#define statement(otherwise) atomic { if :: is_open :: !is_open -> goto otherwise fi }

inline read_under_lock() {
#ifdef LOCK_KEEPS_TABLES
    atomic { if :: is_open -> shares++; keeps = true :: !is_open -> goto leave fi }
#else
    statement(leave)                       /* in a savepoint that is rolled back */
#endif
}

inline begin() {
#ifdef WORK_GIVES_UP
    do
    :: atomic { is_open -> shares++; break }
    :: !is_open                            /* begins the transaction anew */
    od
#else
    atomic { is_open -> shares++ }
#endif
}

inline commit() { shares-- }

proctype process(byte me) {
    bool keeps;
    byte n;

poll:
    statement(poll);
    atomic { if :: completion -> goto finish :: !completion && holder == FREE -> holder = me fi };
    read_under_lock();
    if :: completion -> goto leave :: else fi;
    statement(leave);                      /* claim: insert, fence, read */
    n = 0;
    do
    :: n < BATCHES ->
#if KIND == EXTERNAL
       skip;                               /* the body: outside of any transaction */
#endif
       begin();
#if KIND != EXTERNAL
       skip;                               /* the body: for a while */
#endif
       atomic { n++; completion = (n == BATCHES); commit() }
    :: n == BATCHES -> break
    od;
leave:
    atomic {
        holder = FREE;
        if :: keeps -> shares--; keeps = false :: else fi;
        goto poll
    };
finish:
    over++
}

proctype changer() {
    byte n;
    do
    :: n < CHANGES ->
       is_asked = true;
       atomic { shares == 0 -> is_changed = true; is_asked = false };
       is_changed = false;
       n++
    :: n == CHANGES -> break
    od;
    over++
}

init {
    byte i;
    atomic { for (i : 0 .. PROCESSES - 1) { run process(i) }; run changer() };
    over == PROCESSES + 1;
    assert(shares == 0)
}

ltl everyone_ends { <> (over == PROCESSES + 1) }
