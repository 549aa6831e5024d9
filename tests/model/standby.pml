/*
 * Who waits for a lock, and how they are told: the standby has a second lock, its place, and asks
 * often; the others look whether the lock or the place is free. See claim.pml for the rest.
 *
 * MODELLED. The session of a standby is a thread of its own: it frees its place for a moment at each
 * question, may lose it, and may break. No pause of anybody ever ends by itself: the code's do, so
 * this demands more. Some tries are refused though the lock is free, as by another's look.
 */

#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef BREAKS
#define BREAKS 1
#endif
#ifndef REFUSALS
#define REFUSALS 1
#endif
#ifndef FAILURES
#define FAILURES 1
#endif

#define FREE PROCESSES
#define DEAD (PROCESSES + 1)

byte lock = FREE, place = FREE;           /* who has these locks */
bool is_standby[PROCESSES], turn[PROCESSES], is_marked[PROCESSES];
bool completion;
byte over, crashes = CRASHES, breaks = BREAKS, refusals = REFUSALS, failures = FAILURES;

inline release() {                         /* of the session, and so of both */
    if :: lock == me -> lock = FREE :: else fi;
    if :: place == me -> place = FREE :: else fi;
    is_standby[me] = false; turn[me] = false; is_marked[me] = false
}

inline release_unless_standby() {                       /* free the lock, but stay the standby where this is */
    atomic {
        if
        :: is_marked[me] || !is_standby[me] -> release()
#ifdef TURN_THROWN_AWAY
        :: !is_marked[me] && is_standby[me] && turn[me] -> release()
#endif
        :: else
        fi
    }
}

inline take() {                            /* held, or the standby, or neither */
    if
    :: lock == FREE -> lock = me
    :: lock == FREE && refusals > 0 -> refusals--
    :: lock != FREE
    fi;
    if
    :: lock != me && place == FREE -> place = me
    :: else
    fi
}

proctype session(byte me) {                /* beats while its process is the standby and waits */
end:
    do
    :: atomic { is_standby[me] && !turn[me] && place == me -> place = FREE };
       atomic {
           if
           :: !is_standby[me] || turn[me]     /* its process is gone */
           :: is_standby[me] && !turn[me] ->
               take();
               if
               :: lock == me -> turn[me] = true
               :: lock != me && place == me
               :: lock != me && place != me -> is_standby[me] = false;
#ifdef STANDBY_NOT_TOLD
                   skip
#else
                   turn[me] = true
#endif
               fi
           fi
       }
    :: atomic { is_standby[me] && !turn[me] && place == me && breaks > 0 ->
                breaks--; place = FREE;
#ifdef BREAK_NOT_TOLD
                skip
#else
                turn[me] = true
#endif
              }
    od
}

proctype process(byte me) {
poll:
    if
    :: completion -> goto finish
    :: !completion
    fi;
    atomic {                               /* anew: what the session holds is freed first */
        release(); take();
        is_standby[me] = (place == me);
        if
        :: lock == me -> is_marked[me] = true; goto held
        :: else
        fi
    };
    release_unless_standby();
wait:
    if
    :: is_standby[me] || turn[me] ->          /* sleeps until it is told */
        if
        :: turn[me]
        :: atomic { crashes > 0 -> crashes--; release(); goto gone }
        fi
    :: !is_standby[me] && !turn[me] ->
        if
        :: atomic { lock == FREE || place == FREE }
        :: atomic { crashes > 0 -> crashes--; release(); goto gone }
        fi
    fi;
    goto poll;
held:
    if
    :: completion = true
    :: completion
    :: atomic { failures > 0 && !completion -> failures-- }; release_unless_standby(); goto poll
    :: atomic { crashes > 0 -> crashes--; lock = DEAD; goto gone }
    fi;
finish:
    atomic { release() };
gone:
    over++
}

init {
    byte i;
    atomic { for (i : 0 .. PROCESSES - 1) { run process(i); run session(i) } };
end:
    do
#ifdef NO_EVICTION
    :: false
#else
    :: atomic { lock == DEAD -> lock = FREE }
#endif
    od
}

ltl everyone_ends { <> (over == PROCESSES) }
