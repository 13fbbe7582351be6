-- Pauses a schedule: it sends nothing until it is resumed.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule
-- Reply its state, or nothing if it does not exist;
--       or the error GONE: the tenant has moved to another shard
--
-- Bounded: one schedule.
-- Safe to repeat: a paused or finished schedule stays so.

-- @include lib/intact.lua
-- @include own/lib.lua
-- @include own/home.lua

local key = key_of(ARGV[1])
local state = call('HGET', key, 'state')
if state == 'active' then
  call('HSET', key, 'state', 'paused')
  state = 'paused'
end
if state == 'paused' then call('ZREM', OWN .. 'due', ARGV[1]) end
return state
