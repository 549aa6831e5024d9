/*
 * Who waits for a guard, and how they are told: the heir has a second lock, its place, and asks
 * often; the others look whether the lock or the place is free. See claim.pml for the rest.
 *
 * MODELLED. The session of an heir is a thread of its own: it frees its place for a moment at each
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

byte guard = FREE, place = FREE;           /* who has these locks */
bool is_heir[PROCESSES], turn[PROCESSES], is_marked[PROCESSES];
bool completion;
byte over, crashes = CRASHES, breaks = BREAKS, refusals = REFUSALS, failures = FAILURES;

inline release() {                         /* of the session, and so of both */
    if :: guard == me -> guard = FREE :: else fi;
    if :: place == me -> place = FREE :: else fi;
    is_heir[me] = false; turn[me] = false; is_marked[me] = false
}

inline step_back() {                       /* free the lock, but stay the heir where this is */
    atomic {
        if
        :: is_marked[me] || !is_heir[me] -> release()
#ifdef TURN_THROWN_AWAY
        :: !is_marked[me] && is_heir[me] && turn[me] -> release()
#endif
        :: else
        fi
    }
}

inline take() {                            /* held, or the heir, or neither */
    if
    :: guard == FREE -> guard = me
    :: guard == FREE && refusals > 0 -> refusals--
    :: guard != FREE
    fi;
    if
    :: guard != me && place == FREE -> place = me
    :: else
    fi
}

proctype session(byte me) {                /* beats while its process is the heir and waits */
end:
    do
    :: atomic { is_heir[me] && !turn[me] && place == me -> place = FREE };
       atomic {
           if
           :: !is_heir[me] || turn[me]     /* its process is gone */
           :: is_heir[me] && !turn[me] ->
               take();
               if
               :: guard == me -> turn[me] = true
               :: guard != me && place == me
               :: guard != me && place != me -> is_heir[me] = false;
#ifdef HEIR_NOT_TOLD
                   skip
#else
                   turn[me] = true
#endif
               fi
           fi
       }
    :: atomic { is_heir[me] && !turn[me] && place == me && breaks > 0 ->
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
        is_heir[me] = (place == me);
        if
        :: guard == me -> is_marked[me] = true; goto held
        :: else
        fi
    };
    step_back();
wait:
    if
    :: is_heir[me] || turn[me] ->          /* sleeps until it is told */
        if
        :: turn[me]
        :: atomic { crashes > 0 -> crashes--; release(); goto gone }
        fi
    :: !is_heir[me] && !turn[me] ->
        if
        :: atomic { guard == FREE || place == FREE }
        :: atomic { crashes > 0 -> crashes--; release(); goto gone }
        fi
    fi;
    goto poll;
held:
    if
    :: completion = true
    :: completion
    :: atomic { failures > 0 && !completion -> failures-- }; step_back(); goto poll
    :: atomic { crashes > 0 -> crashes--; guard = DEAD; goto gone }
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
    :: atomic { guard == DEAD -> guard = FREE }
#endif
    od
}

ltl everyone_ends { <> (over == PROCESSES) }
