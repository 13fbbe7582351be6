/*
 * A Promela model of the lease protocol. Spin tries every order in which its steps can happen.
 *
 *     spin -DLAPSES=1 -DSTRAYS=1 -a docs/lease.pml
 *     cc -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan
 *     spin -DLAPSES=1 -DSTRAYS=1 -T -k lease.pml.trail docs/lease.pml     after an error: prints the steps to it
 *
 * "errors: 0" means that no order violates a property. Add -DKEEP_NAME, or another of the switches that break the
 * protocol, to both spin lines to get an error. tests/worker/test_lease_protocol.py runs all of this (pytest -m slow).
 *
 * The model has one shard, two runtimes and two tasks. A script is one step, as on the server. Nothing takes time:
 * something slow is something that other steps precede, and a lease may run out at any moment. A frozen runtime is
 * simply one that takes no step.
 *
 *     model                 source
 *     turn                  lua/turn.lua
 *     Time, release         lua/tend.lua, lib/release.lua with deliveries
 *     join                  lua/join.lua
 *     leaves, release       lua/leave.lua, lib/release.lua without deliveries
 *     Client                lua/cancel.lua
 *     Runtime               _worker/dispatcher.py, _worker/pool.py, _worker/claim.py
 *     session, claim        :sessions, :claims:RUNTIME
 *     name, incarnation     "NAME/1", "NAME/2", ...: a runtime that lost its lease takes the next name
 *
 * What can go wrong. Each -D says how often:
 *
 *     LAPSES     The lease of a live runtime runs out. Until `tend` runs, a turn can still renew it.
 *     LOSSES     A request is carried out, but its reply is lost, so the runtime sends it again.
 *     STRAYS     A copy of a turn is still on the network after the runtime has moved on, and arrives at any later
 *                moment.
 *     CRASHES    A runtime dies. Its request may still arrive. It starts again under a new name.
 *     LEAVES     A runtime leaves while its handlers run.
 *     CANCELS    A task is canceled: at once if it is queued. Otherwise the request is noted, and the runtime may not
 *                hear of it.
 *     ZOMBIES    A handler outlives the lease it ran under, and its outcome travels with a turn of the next name.
 *     ROLLBACKS  (0 or 1) The server returns to an earlier state, as after a restart from its append-only file or a
 *                failover to a replica. Connections break: requests sent before do not arrive afterwards, but a reply
 *                may already have been read.
 *     IDLES      A turn that has nothing to report and finds all in order. (Other turns need a reason.)
 *
 * Properties:
 *
 *     S1  A task is settled at most once. What was rolled back counts as never done.
 *     S2  A task is queued, claimed by one holder of a lease, or settled: always exactly one of these.
 *     S3  Nothing changes a settled task.
 *     S4  Once a turn is answered, its runtime knows every claim under its name, and is never given a task that it
 *         already runs.
 *     S5  The outcome that counts belongs to the current claim, not to an earlier claim of the same task.
 *     S6  A runtime loses its lease at most once for each lapse and each rollback.
 *     L   Every task is settled in the end: when no more steps are possible, all tasks are settled. That is enough
 *         because there are no cycles; `./pan -l`, built with -DNP instead of -DSAFETY, checks for them. The
 *         assumptions that remain are that runtimes keep going and that one of them tends.
 *
 * Broken on purpose. Each switch removes one safeguard, and the property on the right must fail:
 *
 *     NO_FENCING     any outcome counts if it comes with a turn under a lease                          S1
 *     MARK_ONLY      outcomes are compared by turn only, not by the name that claimed the task         S5
 *     NO_REPLAY      a turn that is sent again is carried out again                                    S4
 *     NO_LATE_CHECK  a turn older than the last one is carried out                                     S6
 *     NO_GAP_CHECK   a turn is carried out although the server has lost the turns before it            L
 *     KEEP_NAME      a runtime that lost its lease joins under the same name, and counts from 1        S4
 *     REAP_LIVE      `tend` takes claims back but leaves the lease and the session                     S4
 *     DROP_CLAIMS    `tend` forgets the claims and does not queue them                                 S2
 *
 * What the protocol does not survive:
 *
 *     LATE_JOIN      (with STRAYS) A copy of `join` arrives after that lease has been lost and forgotten, and brings
 *                    it back. Then a copy of turn 1 is taken as new. With TOKEN the protocol survives: `join` gives
 *                    each lease a number of its own, and every turn names it.                          S5
 *     LATE_ROLLBACK  A copy sent before the rollback arrives after it, for example through a proxy. It is taken as
 *                    new, and its claims differ from those its runtime was told.                       S5
 *
 * The numbers given bound the search, and at most two copies are on the network at once. Left out: retries and delays,
 * the fair choice (any order is tried), sends, watchers, several shards, a server that stays away.
 */

#ifndef LAPSES
#define LAPSES 0
#endif
#ifndef LOSSES
#define LOSSES 0
#endif
#ifndef STRAYS
#define STRAYS 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef LEAVES
#define LEAVES 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef ZOMBIES
#define ZOMBIES 0
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 0
#endif
#ifndef IDLES
#define IDLES 0
#endif

#define R 2
#define T 2
#define DELIVERIES 2
#define SLOTS 2 /* copies on the network at once */

#define INCARNATIONS (1 + LAPSES + CRASHES + ROLLBACKS)
#define NAMES (R * INCARNATIONS)
#define name(r) ((r) * INCARNATIONS + incarnation[r])
#define runtime_of(n) ((n) / INCARNATIONS)
#define at(x, t) ((x) * T + (t))

/* The server. */

#define NONE 0
#define HELD 1
#define OVER 2 /* it has run out, and `tend` has not run yet */
byte lease[NAMES];
byte session[NAMES];   /* its last turn; 0: none */
byte claim[NAMES * T]; /* the turn that claimed the task; 0: not claimed */
bit queued[T], settled[T];
bit canceled[T];       /* claimed, and its cancellation was requested */
byte deaths[T];
byte attempt[T];       /* the number of its last claim. Only S5 uses it, the protocol does not know it */
byte attempts[T];      /* how many claims there were, including rolled-back ones */
byte token[NAMES];     /* with TOKEN */
byte tokens;

/* The saved state of the server, for ROLLBACKS. */

#define NOTHING 0
#define SAVED 1
#define RESTORED 2
byte history = NOTHING;
#if ROLLBACKS
byte old_lease[NAMES], old_session[NAMES], old_token[NAMES], old_claim[NAMES * T], old_deaths[T];
byte old_attempt[T];
bit old_queued[T], old_settled[T], old_canceled[T];
#endif

/* The runtimes. */

#define JOINING 0
#define RESTING 1
#define ASKING 2
#define GONE 3
byte phase[R], incarnation[R], number[R], my_token[R];
byte held[R * T];         /* the turn that claimed the task, in this incarnation; 0: not this runtime's */
byte held_attempt[R * T]; /* the value of `attempt` then */

/* Requests: the turn that a runtime sends until it is answered, and copies of turns on the network. */

typedef Request {
    byte name, number, want, token;
    byte outcome[T], outcome_attempt[T];           /* the turn that claimed the task; 0: no outcome */
    byte late, late_name, late_mark, late_attempt; /* of a zombie: its task + 1, and the claim it had */
};
Request request[R], copy[SLOTS];
bit under_way[SLOTS];

#define LOST 1
#define DONE 2
byte reply[R];
byte given[R * T]; /* in the reply: `attempt` of each claimed task; 0: not claimed */
bit before[R];     /* the reply is older than the rollback: no copy was sent after it */

/* A zombie's outcome, waiting for the next turn. */
byte zombie[R], zombie_name[R], zombie_mark[R], zombie_attempt[R];

/* What can still go wrong. */
byte lapses = LAPSES, losses = LOSSES, strays = STRAYS, crashes = CRASHES, leaves = LEAVES, cancels = CANCELS,
     zombies = ZOMBIES, idles = IDLES;

/* Temporary variables of a step; 0 between steps. */
byte t, n, sum, first, answer, mask;
byte got[T];
bit lost;

/* Checks S2, after each script. */
inline check() {
    for (t : 0 .. T - 1) {
        sum = queued[t] + settled[t];
        for (n : 0 .. NAMES - 1) {
            sum = sum + (claim[at(n, t)] != 0);
            assert(claim[at(n, t)] == 0 || lease[n] != NONE)
        }
        assert(sum == 1)
    }
    t = 0; n = 0; sum = 0
}

/* Checks S1 and S3. */
inline settle(task) {
    assert(!settled[task]);
    settled[task] = 1;
    canceled[task] = 0;
    deaths[task] = 0
}

#ifdef MARK_ONLY
#define same_holder(holder, claimer) true
#else
#define same_holder(holder, claimer) (holder == claimer)
#endif

/* Messages name a runtime and its incarnation, for example "1/2". */
#define who(n) ((n) / INCARNATIONS), ((n) % INCARNATIONS + 1)

/* Handles one outcome in a turn under `holder`, from the claim that `claimer` made in turn `mark`. */
inline report(holder, task, claimer, mark, its_attempt) {
#ifdef NO_FENCING
    settle(task);
    claim[at(holder, task)] = 0
#else
    if
    :: claim[at(holder, task)] == mark && same_holder(holder, claimer) ->
        printf("    the outcome of task %d counts\n", task);
        assert(its_attempt == attempt[task]); /* S5 */
        claim[at(holder, task)] = 0;
        settle(task)
    :: else -> printf("    the outcome of task %d is refused\n", task)
    fi
#endif
}

inline carry_out(q) {
    for (t : 0 .. T - 1) {
        if
        :: q.outcome[t] -> report(q.name, t, q.name, q.outcome[t], q.outcome_attempt[t])
        :: else
        fi
    }
    if
    :: q.late -> report(q.name, q.late - 1, q.late_name, q.late_mark, q.late_attempt)
    :: else
    fi;
    sum = q.want;
    for (n : 0 .. T - 1) {
        t = (first + n) % T;
        if
        :: queued[t] && sum > 0 ->
            queued[t] = 0;
            claim[at(q.name, t)] = q.number;
            attempts[t]++;
            attempt[t] = attempts[t];
            got[t] = attempt[t];
            sum--;
            printf("    it claims task %d\n", t)
        :: else
        fi
    }
    session[q.name] = q.number;
    lease[q.name] = HELD
}

/* Gives what was claimed in that turn and still is. */
inline replay(q) {
    for (t : 0 .. T - 1) {
        if
        :: claim[at(q.name, t)] == q.number -> got[t] = attempt[t]
        :: else
        fi
    }
}

/* Chooses which queued task is first in the ring. */
inline choose(q) {
    if
    :: first = 0
    :: queued[0] && queued[1] && q.want == 1 -> first = 1
    fi
}

inline done() {
    first = 0; answer = 0; t = 0; n = 0; sum = 0;
    got[0] = 0; got[1] = 0
}

/* Sets `answer` and `got`. */
inline turn(q) {
    printf("%d/%d: turn %d, after %d\n", who(q.name), q.number, session[q.name]);
    answer = DONE;
    for (t : 0 .. T - 1) { got[t] = 0 }
    if
    :: lease[q.name] == NONE || q.token != token[q.name] -> answer = LOST; printf("    no lease\n")
    :: else ->
        if
#ifdef NO_REPLAY
        :: q.number == session[q.name] -> carry_out(q)
#else
        :: q.number == session[q.name] -> replay(q)
#endif
#ifdef NO_LATE_CHECK
        :: q.number < session[q.name] -> carry_out(q)
#else
        :: q.number < session[q.name] -> skip
#endif
        :: q.number == session[q.name] + 1 -> carry_out(q)
#ifdef NO_GAP_CHECK
        :: q.number > session[q.name] + 1 -> carry_out(q)
#else
        :: q.number > session[q.name] + 1 -> answer = LOST
#endif
        fi
    fi;
    check()
}

/* Takes back the claims of a name. `died` says whether that counts as a delivery. */
inline release(who, died) {
    for (t : 0 .. T - 1) {
        if
        :: claim[at(who, t)] ->
            claim[at(who, t)] = 0;
            if
            :: canceled[t] -> settle(t)
            :: !canceled[t] && died && deaths[t] + 1 >= DELIVERIES -> settle(t)
            :: else ->
#ifndef DROP_CLAIMS
                queued[t] = 1;
#endif
                deaths[t] = deaths[t] + died
            fi
        :: else
        fi
    }
}

inline join(who) {
#ifdef TOKEN
    if
    :: lease[who] == NONE -> tokens++; token[who] = tokens
    :: else
    fi;
#endif
    lease[who] = HELD;
    check()
}

inline forget(who) {
    lease[who] = NONE;
    session[who] = 0;
    token[who] = 0
}

inline clear(q) {
    q.name = 0; q.number = 0; q.want = 0; q.token = 0;
    for (t : 0 .. T - 1) { q.outcome[t] = 0; q.outcome_attempt[t] = 0 }
    q.late = 0; q.late_name = 0; q.late_mark = 0; q.late_attempt = 0;
    t = 0
}

/* The runtime is done with its request. A copy of it may still be on the network. */
inline let_go(r) {
    if
    :: true
    :: strays > 0 && !(under_way[0] && under_way[1]) && !before[r] ->
        d_step {
            strays--;
            if
            :: !under_way[0] -> n = 0
            :: else -> n = 1
            fi;
            under_way[n] = 1;
            copy[n].name = request[r].name; copy[n].number = request[r].number; copy[n].want = request[r].want;
            copy[n].token = request[r].token;
            for (t : 0 .. T - 1) {
                copy[n].outcome[t] = request[r].outcome[t]; copy[n].outcome_attempt[t] = request[r].outcome_attempt[t]
            }
            copy[n].late = request[r].late; copy[n].late_name = request[r].late_name;
            copy[n].late_mark = request[r].late_mark; copy[n].late_attempt = request[r].late_attempt;
            n = 0
        }
    fi;
    d_step { clear(request[r]); before[r] = 0 }
}

/* The runtime forgets everything it had claimed, and takes the next name. */
inline start_over(r) {
    d_step {
        for (t : 0 .. T - 1) { held[at(r, t)] = 0; held_attempt[at(r, t)] = 0; given[at(r, t)] = 0 }
        t = 0;
        reply[r] = NONE;
        number[r] = 0;
        my_token[r] = 0;
        zombie[r] = 0; zombie_name[r] = 0; zombie_mark[r] = 0; zombie_attempt[r] = 0;
        phase[r] = JOINING
    }
}

inline next_name(r) {
    assert(incarnation[r] + 1 < INCARNATIONS); /* S6 */
    incarnation[r]++
}

#define all_settled (settled[0] && settled[1])
#define mine(r, t) (held[at(r, t)] != 0)
#define work (queued[0] || queued[1])
#define wanted(r) (2 - r - mine(r, 0) - mine(r, 1)) /* runtime 0 has two workers, runtime 1 has one */
#define vacant(r) (mine(r, 0) + mine(r, 1) < 2 - r)
#define disturbed(r) /* the next turn would notice */ \
    (lease[name(r)] != HELD || session[name(r)] != number[r])

proctype Runtime(byte r) {
end:
    do
    /* It joins. The reply may be lost, and then the request is sent again. */
    :: atomic {
        phase[r] == JOINING ->
        d_step { printf("%d/%d joins\n", who(name(r))); join(name(r)) }
        if
        :: d_step { phase[r] = RESTING; my_token[r] = token[name(r)] }
#ifdef LATE_JOIN
        :: strays > 0 && !under_way[0] -> d_step {
            phase[r] = RESTING;
            my_token[r] = token[name(r)];
            strays--;
            under_way[0] = 1;
            copy[0].name = name(r)
        }
#endif
        :: losses > 0 -> losses--
        fi
    }

    /* It composes a turn, if there is a reason for one. Any of its handlers may have ended by then. */
    :: atomic {
        phase[r] == RESTING && (mine(r, 0) || mine(r, 1) || (work && vacant(r)) || zombie[r] || disturbed(r)
                                || (idles > 0 && !all_settled)) ->
        if
        :: (work && vacant(r)) || disturbed(r)
        :: zombie[r] -> first = 1
        :: idles > 0 && !all_settled -> idles--
        :: mine(r, 0) -> mask = 1
        :: mine(r, 1) -> mask = 2
        :: mine(r, 0) && mine(r, 1) -> mask = 3
        fi;
        if
        :: true
        :: mask && zombie[r] -> first = 1
        fi;
        d_step {
            number[r]++;
            request[r].name = name(r);
            request[r].number = number[r];
            request[r].token = my_token[r];
            for (t : 0 .. T - 1) {
                if
                :: mask & (1 << t) ->
                    request[r].outcome[t] = held[at(r, t)];
                    request[r].outcome_attempt[t] = held_attempt[at(r, t)];
                    held[at(r, t)] = 0;
                    held_attempt[at(r, t)] = 0
                :: else
                fi
            }
            request[r].want = (vacant(r) -> wanted(r) : 0);
            if
            :: first ->
                request[r].late = zombie[r]; request[r].late_name = zombie_name[r];
                request[r].late_mark = zombie_mark[r]; request[r].late_attempt = zombie_attempt[r];
                zombie[r] = 0; zombie_name[r] = 0; zombie_mark[r] = 0; zombie_attempt[r] = 0
            :: else
            fi;
            phase[r] = ASKING;
            mask = 0; first = 0; t = 0
        }
    }

    /* The turn arrives. */
    :: atomic {
        phase[r] == ASKING && reply[r] == NONE ->
        if
        :: lost = 0
        :: losses > 0 -> losses--; lost = 1; printf("The reply will be lost: ")
        fi;
        choose(request[r]);
        d_step {
            turn(request[r]);
            if
            :: !lost ->
                reply[r] = answer;
                for (t : 0 .. T - 1) { given[at(r, t)] = got[t] }
            :: else
            fi;
            lost = 0;
            done()
        }
    }

    /* The reply arrives. */
    :: atomic {
        reply[r] == DONE ->
        d_step {
            printf("%d/%d: turn %d is answered\n", who(name(r)), number[r]);
            for (t : 0 .. T - 1) {
                if
                :: given[at(r, t)] ->
                    assert(!mine(r, t)); /* S4: not a task that it still runs */
                    held[at(r, t)] = request[r].number;
                    held_attempt[at(r, t)] = given[at(r, t)];
                    given[at(r, t)] = 0
                :: else
                fi;
                /* S4. After a rollback the runtime notices with its next turn, so L covers that case. */
                assert(history == RESTORED || claim[at(name(r), t)] == 0
                       || (held[at(r, t)] == claim[at(name(r), t)] && held_attempt[at(r, t)] == attempt[t]))
            }
            t = 0;
            reply[r] = NONE;
            phase[r] = RESTING
        }
        let_go(r)
    }
    :: atomic {
        reply[r] == LOST ->
        printf("%d/%d learns that its lease is lost\n", who(name(r)));
        let_go(r);
        if
        :: true
        :: zombies > 0 && mine(r, 0) -> zombies--; mask = 1
        :: zombies > 0 && mine(r, 1) -> zombies--; mask = 2
        fi;
        d_step {
            n = name(r);
            first = (mask -> held[at(r, mask - 1)] : 0);
            sum = (mask -> held_attempt[at(r, mask - 1)] : 0)
        }
        start_over(r);
        d_step {
            if
            :: mask -> zombie[r] = mask; zombie_name[r] = n; zombie_mark[r] = first; zombie_attempt[r] = sum
            :: else
            fi;
            mask = 0; n = 0; first = 0; sum = 0;
#ifndef KEEP_NAME
            next_name(r)
#endif
        }
    }

    /* It dies and starts again. */
    :: atomic {
        crashes > 0 && phase[r] != GONE && !all_settled ->
        crashes--;
        printf("%d/%d dies\n", who(name(r)));
        if
        :: phase[r] == ASKING -> let_go(r)
        :: else
        fi;
        start_over(r);
        next_name(r)
    }

    /* It leaves. What ended before is reported, and the other handlers are canceled. */
    :: atomic {
        leaves > 0 && phase[r] == RESTING && !zombie[r] ->
        d_step {
            leaves--;
            printf("%d/%d leaves\n", who(name(r)));
            release(name(r), 0);
            forget(name(r));
            check()
        }
        start_over(r);
        phase[r] = GONE
    }
    od
}

/* A slot on the network for a delayed copy. Its reply reaches nobody. */
proctype Network(byte i) {
end:
    do
    :: atomic {
        under_way[i] ->
        choose(copy[i]);
        d_step {
            printf("A copy of ");
            if
            :: copy[i].number == 0 ->
                printf("%d/%d joins, late\n", who(copy[i].name));
                join(copy[i].name)
            :: else -> turn(copy[i])
            fi;
            clear(copy[i]);
            under_way[i] = 0;
            done()
        }
    }
    od
}

#define current(n) (name(runtime_of(n)) == n && phase[runtime_of(n)] != GONE)

/* A lease runs out, and whoever tends the shard finds it. The lease of a runtime that is gone always runs out. */
proctype Time(byte holder) {
end:
    do
    :: d_step { lease[holder] == HELD && !current(holder) ->
        printf("%d/%d: its lease is over\n", who(holder));
        lease[holder] = OVER
    }
    :: d_step { lease[holder] == HELD && current(holder) && lapses > 0 && !all_settled ->
        lapses--;
        printf("%d/%d: its lease is over\n", who(holder));
        lease[holder] = OVER
    }
    :: d_step { lease[holder] == OVER ->
        printf("%d/%d is found dead\n", who(holder));
        release(holder, 1);
#ifndef REAP_LIVE
        forget(holder);
#endif
        check()
    }
    od
}

proctype Client() {
    byte i;
end:
    do
    :: d_step { cancels > 0 && !settled[i] ->
        cancels--;
        printf("Task %d is canceled\n", i);
        if
        :: queued[i] -> queued[i] = 0; settle(i)
        :: else -> canceled[i] = 1
        fi;
        check()
    }
    :: atomic { cancels > 0 && i < T - 1 -> i++ }
    od
}

#if ROLLBACKS
inline save() {
    for (n : 0 .. NAMES - 1) { old_lease[n] = lease[n]; old_session[n] = session[n]; old_token[n] = token[n] }
    for (n : 0 .. NAMES * T - 1) { old_claim[n] = claim[n] }
    for (t : 0 .. T - 1) {
        old_queued[t] = queued[t]; old_settled[t] = settled[t]; old_canceled[t] = canceled[t];
        old_deaths[t] = deaths[t];
        old_attempt[t] = attempt[t]
    }
    n = 0; t = 0
}

inline restore() {
    for (n : 0 .. NAMES - 1) {
        lease[n] = old_lease[n]; session[n] = old_session[n]; token[n] = old_token[n];
        old_lease[n] = 0; old_session[n] = 0; old_token[n] = 0
    }
    for (n : 0 .. NAMES * T - 1) { claim[n] = old_claim[n]; old_claim[n] = 0 }
    for (t : 0 .. T - 1) {
        queued[t] = old_queued[t]; settled[t] = old_settled[t]; canceled[t] = old_canceled[t];
        deaths[t] = old_deaths[t];
        attempt[t] = old_attempt[t]; old_attempt[t] = 0;
        old_queued[t] = 0; old_settled[t] = 0; old_canceled[t] = 0; old_deaths[t] = 0
    }
    n = 0; t = 0
}

proctype Server() {
end:
    do
    :: d_step { history == NOTHING && !all_settled ->
        printf("The server writes its file\n");
        save();
        history = SAVED
    }
    :: d_step { history == SAVED ->
        printf("The server starts again from its file\n");
        restore();
        history = RESTORED;
#ifndef LATE_ROLLBACK
        for (n : 0 .. SLOTS - 1) { clear(copy[n]); under_way[n] = 0 }
        for (n : 0 .. R - 1) { before[n] = (reply[n] != NONE) }
        n = 0;
#endif
        check()
    }
    od
}
#endif

/* Checks L. */
proctype End() {
end:
    timeout -> assert(all_settled)
}

init {
    atomic {
        queued[0] = 1; queued[1] = 1;
        run Runtime(0); run Runtime(1);
#if STRAYS
        run Network(0);
#if STRAYS > 1
        run Network(1);
#endif
#endif
        for (n : 0 .. NAMES - 1) { run Time(n) }
        n = 0;
#if CANCELS
        run Client();
#endif
#if ROLLBACKS
        run Server();
#endif
        run End()
    }
}
