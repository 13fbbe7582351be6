-- Lets a paused schedule go on. What has come due meanwhile is missed, or made up for, as it says itself.
--
-- KEYS  1 META of the shard
-- ARGV  1 schedule
-- Reply the state in which it is now, or nothing where there is none
--
-- Safe to repeat: an active one that is due at once is looked at once more.

-- @include lib/intact.lua
-- @include own/lib.lua

local key = key_of(ARGV[1])
local state = call('HGET', key, 'state')
if state == 'paused' then call('HSET', key, 'state', 'active') end
if state == 'paused' or state == 'active' and not call('ZSCORE', OWN .. 'due', ARGV[1]) then
  state = 'active'
  put_due(ARGV[1], shard.ms)
end
return state
