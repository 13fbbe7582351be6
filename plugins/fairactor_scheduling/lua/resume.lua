-- Resumes a paused schedule. The runs that came due meanwhile are missed or caught up, as the schedule says.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule
-- Reply its state, or nothing if it does not exist;
--       or the error GONE: the tenant has moved to another shard
--
-- Bounded: one schedule.
-- Safe to repeat: an active schedule that is due at once is looked at once more.

-- @include lib/intact.lua
-- @include own/lib.lua
-- @include own/home.lua

local key = key_of(ARGV[1])
local state = call('HGET', key, 'state')
if state == 'paused' then call('HSET', key, 'state', 'active') end
if state == 'paused' or state == 'active' and not call('ZSCORE', OWN .. 'due', ARGV[1]) then
  state = 'active'
  put_due(ARGV[1], shard.wall_ms)
end
return state
