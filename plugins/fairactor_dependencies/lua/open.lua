-- Opens the gate of a run, or shuts it for ever: then all of the run is canceled.
--
-- KEYS  1 META of the shard
-- ARGV  1 run, 2 'F' opens, 'C' shuts it
-- Reply how it has ended: 'F' or 'C', whoever was first
--
-- Safe to repeat: a gate ends once, and its end is remembered.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/queues.lua
-- @include lib/ending.lua

local run, letter = ARGV[1], ARGV[2]
local ended = call('GET', OWN .. 'gate:' .. run)
if ended then return ended end
if not call('ZSCORE', OWN .. 'gates', run) then return 'C' end -- its time was over long ago
share(SELF).gates = { { run, letter } }
conclude()
seat(arriving)

begin_writing()
write_ends()
save_counts()
save_shard()
return letter
