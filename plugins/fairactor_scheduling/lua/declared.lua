-- Lists the schedules that actors declare, some at a time.
--
-- KEYS  1 META of the shard
-- ARGV  1 cursor, 0 at first
-- Reply {cursor of the next call, 0 after the last one, schedule, actor, ...}; one may come twice
--
-- Bounded: about 500 schedules.
-- Reads only.

-- @include lib/intact.lua

local AT_ONCE = 500
local found = call('HSCAN', OWN .. 'declared', ARGV[1], 'COUNT', AT_ONCE)
return { found[1], unpack(found[2]) }
