/*
 * Locks and work share a pool of server connections, as behind PgBouncer, one routine for each
 * process. A lock keeps a connection from its first statement on, work one for each statement or
 * transaction. The queue is first come, first served. See claim.pml for the rest.
 *
 * While a first answer is waited for under `yielding`, the lock may give itself up. That all of
 * them do so together again and again is not excluded here; their times are drawn at random.
 */

#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef POOL
#define POOL 2
#endif
#define ATOMIC   0
#define EXTERNAL 2
#ifndef KIND
#define KIND ATOMIC
#endif

byte idle = POOL;
byte over;
chan queue = [PROCESSES] of { byte };

inline get() {
    queue ! me;
    atomic { queue ? [eval(me)] && idle > 0 -> queue ? eval(me); idle-- }
}

inline get_or_give_up() {
    queue ! me;
    if
    :: atomic { queue ? [eval(me)] && idle > 0 -> queue ? eval(me); idle-- }
    :: atomic { idle == 0 -> queue ?? eval(me); idle++; goto poll }
    fi
}

inline put() { idle++ }

inline begin() {
#ifdef NO_GIVING_UP_AT_BEGIN
    get()
#else
    get_or_give_up()
#endif
    ; put()
}

inline later() {
#ifdef NO_GIVING_UP_LATER
    get()
#else
    get_or_give_up()
#endif
}

proctype process(byte me) {
poll:
    get(); put();                          /* is it done? */
    get();                                 /* the lock's */
    begin();
    if
    :: later(); put();                     /* fence: a predecessor runs */
       get(); put()                        /* the second read does not give up */
    :: true
    fi;
    later();                               /* the work transaction; outside effects come before */
    put();
    put();                                 /* the lock's */
    over++
}

init {
    byte i;
    atomic { for (i : 0 .. PROCESSES - 1) { run process(i) } };
    over == PROCESSES;
    assert(idle == POOL)
}
