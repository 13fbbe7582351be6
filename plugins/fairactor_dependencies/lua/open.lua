-- Opens the gate of a run, or shuts it for good, which cancels the whole run.
--
-- KEYS  1 META of the shard
-- ARGV  1 run, 2 'F' opens, 'C' shuts it
-- Reply how it has ended: 'F' or 'C', whoever was first
--
-- Bounded: it spends the budget of ends.lua; take.lua does the rest.
-- Safe to repeat: a gate ends once, and its end is remembered.

-- @include lib/transition.lua

local run, state = ARGV[1], ARGV[2]
local ended = call('GET', OWN .. 'gate:' .. run)
if ended then return ended end
if not call('ZSCORE', OWN .. 'gates', run) then return 'C' end -- its time ended long ago
share(SELF).gates = { { run, state } }
carry_out()
return state
